#!/usr/bin/env python3
"""Records what optimizers with numbers per row and column make of 50 known gradients, for this library's tests.

Usage: record_rows.py pytorch|optax|packages|pytorch_optimizer [OUTPUT]    (OUTPUT: <library>_rows.txt beside this script unless given)

Inputs and lines are those of record_updaters.py, with as many elements as the tensor has, whose shape stands behind the name
of the trajectory: adafactor_3x5. States are written under the names that this library gives them.
"""

import inspect
import sys
from pathlib import Path

from record_updaters import RECORDED_STEPS, STEPS, formula

SHAPES = ((7,), (3, 5), (1, 7), (7, 1), (2, 3, 5), (2, 2, 3, 2))


def size_of(shape):
    size = 1
    for extent in shape:
        size *= extent
    return size


def gradient(size, step):
    return [formula(i, step) * (0.125 if step % 3 == 0 else 1.0) for i in range(size)]


def pytorch():
    import torch

    torch.set_num_threads(1)
    yield f"PyTorch {torch.__version__.split('+')[0]}, CPU, foreach=False"
    arguments = {"adafactor": {}, "adafactor_decayed": dict(lr=0.05, beta2_decay=-0.5, eps=(1e-4, 1e-2), d=1.5, weight_decay=0.1)}
    names = dict(row_var="row_var", col_var="col_var", variance="row_var")
    for name, given in arguments.items():
        for shape in SHAPES:
            for dtype, dtype_name in ((torch.float64, "float64"), (torch.float32, "float32")):
                size = size_of(shape)
                values = torch.tensor([formula(i, 0) for i in range(size)], dtype=dtype).reshape(shape)
                parameter = torch.nn.Parameter(values)
                optimizer = torch.optim.Adafactor([parameter], foreach=False, **given)
                for step in range(1, STEPS + 1):
                    parameter.grad = torch.tensor(gradient(size, step), dtype=dtype).reshape(shape)
                    optimizer.step()
                    if step not in RECORDED_STEPS:
                        continue
                    at = f"{name}_{'x'.join(map(str, shape))}"
                    yield at, dtype_name, step, "weight", parameter.flatten().tolist()
                    for theirs, ours in names.items():
                        if theirs in optimizer.state[parameter]:
                            yield at, dtype_name, step, ours, optimizer.state[parameter][theirs].flatten().tolist()


    # Muon computes its products in bfloat16; here in the type of the parameter.
    source = inspect.getsource(torch.optim._muon._zeropower_via_newtonschulz)
    exec(source.replace("torch.bfloat16", "grad.dtype"), torch.optim._muon.__dict__)
    arguments = {"muon": dict(lr=0.02), "muon_plain": dict(lr=0.02, momentum=0.8, nesterov=False, weight_decay=0.5, ns_steps=3,
                                                           adjust_lr_fn="match_rms_adamw")}
    for name, given in arguments.items():
        for shape in SHAPES:
            for dtype, dtype_name in ((torch.float64, "float64"), (torch.float32, "float32")):
                size = size_of(shape)
                values = torch.tensor([formula(i, 0) for i in range(size)], dtype=dtype).reshape(shape[0], -1)
                parameter = torch.nn.Parameter(values)
                optimizer = torch.optim.Muon([parameter], **given)
                for step in range(1, STEPS + 1):
                    parameter.grad = torch.tensor(gradient(size, step), dtype=dtype).reshape(shape[0], -1)
                    optimizer.step()
                    if step not in RECORDED_STEPS:
                        continue
                    at = f"{name}_{'x'.join(map(str, shape))}"
                    yield at, dtype_name, step, "weight", parameter.flatten().tolist()
                    buffer = optimizer.state[parameter]["momentum_buffer"]
                    yield at, dtype_name, step, "momentum_buffer", buffer.flatten().tolist()


def optax():
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    yield f"optax {optax.__version__} on jax {jax.__version__}, CPU"
    transforms = {
        "centralize": optax.chain(optax.centralize(), optax.sgd(0.1)),
        "centralize_change": optax.chain(optax.scale_by_adam(), optax.centralize(), optax.scale(-0.02)),
    }
    for name, transform in transforms.items():
        for shape in SHAPES:
            for dtype, dtype_name in ((jnp.float64, "float64"), (jnp.float32, "float32")):
                size = size_of(shape)
                parameter = jnp.array([formula(i, 0) for i in range(size)], dtype=dtype).reshape(shape)
                state = transform.init(parameter)
                for step in range(1, STEPS + 1):
                    change, state = transform.update(jnp.array(gradient(size, step), dtype=dtype).reshape(shape), state, parameter)
                    parameter = optax.apply_updates(parameter, change)
                    if step in RECORDED_STEPS:
                        yield f"{name}_{'x'.join(map(str, shape))}", dtype_name, step, "weight", parameter.flatten().tolist()


def packages():
    """Adam-mini by its authors, whose rows are those of matrices: tensors of more dimensions are given as such."""
    from importlib.metadata import version

    import adam_mini
    import torch

    torch.set_num_threads(1)
    yield f"adam-mini {version('adam-mini')}, PyTorch {torch.__version__.split('+')[0]}, CPU"
    for shape in SHAPES:
        for dtype, dtype_name in ((torch.float64, "float64"), (torch.float32, "float32")):
            size = size_of(shape)
            values = torch.tensor([formula(i, 0) for i in range(size)], dtype=dtype).reshape(shape[0], -1)
            parameter = torch.nn.Parameter(values)
            optimizer = adam_mini.Adam_mini([("mlp.weight", parameter)], lr=0.02, betas=(0.9, 0.99), weight_decay=0.1,
                                            verbose=False)
            for step in range(1, STEPS + 1):
                parameter.grad = torch.tensor(gradient(size, step), dtype=dtype).reshape(shape[0], -1)
                optimizer.step()
                if step not in RECORDED_STEPS:
                    continue
                at = f"adam_mini_{'x'.join(map(str, shape))}"
                yield at, dtype_name, step, "weight", parameter.flatten().tolist()
                for theirs, ours in dict(m="exp_avg", vmean="exp_avg_sq").items():
                    yield at, dtype_name, step, ours, optimizer.state[parameter][theirs].flatten().tolist()


def pytorch_optimizer():
    """Shampoo of matrices that begin without an epsilon, by SVD; tensors of more dimensions are given as matrices.

    SOAP with bases in the type of the parameter, not float32, and its authors' 1e-30 beside the norm. Of square matrices, and
    of others one side: of statistics whose eigenvalue 0 is a multiple one, any eigenvectors are right.
    """
    from importlib.metadata import version

    import pytorch_optimizer
    import torch
    from pytorch_optimizer.optimizer.utils.graft import LayerWiseGrafting

    torch.set_num_threads(1)
    yield f"pytorch_optimizer {version('pytorch_optimizer')}, PyTorch {torch.__version__.split('+')[0]}, CPU"
    common = dict(decoupled_weight_decay=True, matrix_eps=0.0, use_svd=True, shape_interpretation=False)
    arguments = {
        "shampoo": dict(lr=0.02, betas=(0.9, 0.999), weight_decay=0.1, start_preconditioning_step=15,
                        preconditioning_compute_steps=15),
        "shampoo_rmsprop": dict(lr=0.02, betas=(0.0, 0.99), start_preconditioning_step=20, preconditioning_compute_steps=20,
                                graft_type=LayerWiseGrafting.RMSPROP, nesterov=False, moving_average_for_momentum=True),
    }
    for name, given in arguments.items():
        for shape in SHAPES:
            for dtype, dtype_name in ((torch.float64, "float64"), (torch.float32, "float32")):
                size = size_of(shape)
                given_shape = shape if len(shape) == 1 else (shape[0], -1)
                values = torch.tensor([formula(i, 0) for i in range(size)], dtype=dtype).reshape(given_shape)
                parameter = torch.nn.Parameter(values)
                optimizer = pytorch_optimizer.ScalableShampoo([parameter], **common, **given)
                for step in range(1, STEPS + 1):
                    parameter.grad = torch.tensor(gradient(size, step), dtype=dtype).reshape(given_shape)
                    optimizer.step()
                    if step not in RECORDED_STEPS:
                        continue
                    at, state = f"{name}_{'x'.join(map(str, shape))}", optimizer.state[parameter]
                    yield at, dtype_name, step, "weight", parameter.flatten().tolist()
                    if step < given["preconditioning_compute_steps"]:
                        continue
                    yield at, dtype_name, step, "momentum_buffer", state["momentum"].flatten().tolist()
                    for names, matrices in ((("left", "right"), state["pre_conditioner"].statistics),
                                            (("left_root", "right_root"), state["pre_conditioner"].pre_conditioners)):
                        for ours, matrix in zip(names, matrices):
                            yield at, dtype_name, step, ours, matrix.flatten().tolist()

    import pytorch_optimizer.optimizer.soap as module

    source = inspect.getsource(module.SOAP)
    for theirs, ours in (("power_iter.to(torch.float32)", "power_iter"), ("sqrt_().add_(group['eps'])", "sqrt_().add_(1e-30)")):
        assert source.count(theirs) == 1
        source = source.replace(theirs, ours)
    exec(source, module.__dict__)
    square = ((1, 1), (2, 2), (3, 3), (5, 5), (4, 2, 2), (2, 1, 2))
    for name, shapes, given in (
        ("soap", SHAPES, dict(lr=0.02, max_precondition_dim=3, precondition_frequency=7)),
        ("soap_square", square, dict(lr=0.02, betas=(0.9, 0.99), shampoo_beta=0.8, weight_decay=0.1, precondition_frequency=3,
                                     normalize_gradient=True, eps=1e-2)),
    ):
        for shape in shapes:
            for dtype, dtype_name in ((torch.float64, "float64"), (torch.float32, "float32")):
                size = size_of(shape)
                given_shape = shape if len(shape) == 1 else (shape[0], -1)
                values = torch.tensor([formula(i, 0) for i in range(size)], dtype=dtype).reshape(given_shape)
                parameter = torch.nn.Parameter(values)
                optimizer = module.SOAP([parameter], **given)
                for step in range(1, STEPS + 1):
                    parameter.grad = torch.tensor(gradient(size, step), dtype=dtype).reshape(given_shape)
                    optimizer.step()
                    if step not in RECORDED_STEPS:
                        continue
                    at, state = f"{name}_{'x'.join(map(str, shape))}", optimizer.state[parameter]
                    yield at, dtype_name, step, "weight", parameter.flatten().tolist()
                    yield at, dtype_name, step, "exp_avg_sq", state["exp_avg_sq"].flatten().tolist()
                    for ours, matrix in zip(("left", "right"), state["GG"]):
                        if len(matrix):
                            yield at, dtype_name, step, ours, matrix.flatten().tolist()


def main():
    library = sys.argv[1]
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name(f"{library}_rows.txt")
    records = {"pytorch": pytorch, "optax": optax, "packages": packages,
               "pytorch_optimizer": pytorch_optimizer}[library]()
    lines = [f"# Written by record_rows.py, which see; do not edit. Recorded with {next(records)}."]
    for trajectory, dtype, step, tensor, values in records:
        digits = 17 if dtype == "float64" else 9
        lines.append(" ".join([trajectory, dtype, str(step), tensor, *(f"{value:.{digits}g}" for value in values)]))
    output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
