#!/usr/bin/env python3
"""Records what the optimizers of PyTorch, optax, MXNet and smaller packages make of 50 known gradients, for this library's
tests.

Usage: record_updaters.py pytorch|optax|mxnet|packages [OUTPUT]
(OUTPUT: <library>_updaters.txt beside this script unless given)

Inputs are those of record_pytorch.py, which states their formula, for one parameter of the elements i = 0 ... 6. A line of
the output is: trajectory, element type, step, tensor ("weight" or the name that this library gives the state), values. An
optimizer that keeps the negative of a state, or knows it under another name, is translated here.
"""

import collections
import sys
from pathlib import Path

STEPS = 50
RECORDED_STEPS = (1, 2, 10, 50)
SIZE = 7


def formula(i, s):
    import numpy

    x = (i * 2654435761 + s * 3266489917 + 12345) % 2**32
    return float(numpy.float32(x / 2**32 * 2 - 1))


def gradients(step):
    return [formula(i, step) * (0.125 if step % 3 == 0 else 1.0) for i in range(SIZE)]


def weights():
    return [formula(i, 0) for i in range(SIZE)]


def pytorch():
    import torch
    from torch import optim

    torch.set_num_threads(1)
    moments = dict(exp_avg="exp_avg", exp_avg_sq="exp_avg_sq")
    trajectories = {
        "adagrad": (optim.Adagrad, dict(lr=0.1, lr_decay=0.01, initial_accumulator_value=0.1), dict(sum="sum")),
        "rmsprop": (optim.RMSprop, dict(lr=0.01), dict(square_avg="square_avg")),
        "rmsprop_momentum": (optim.RMSprop, dict(lr=0.01, momentum=0.9),
                             dict(square_avg="square_avg", momentum_buffer="momentum_buffer")),
        "rmsprop_centered": (optim.RMSprop, dict(lr=0.01, alpha=0.9, centered=True),
                             dict(square_avg="square_avg", grad_avg="grad_avg")),
        "adadelta": (optim.Adadelta, dict(lr=0.5), dict(square_avg="square_avg", acc_delta="acc_delta")),
        "adamax": (optim.Adamax, dict(lr=0.02), dict(exp_avg="exp_avg", exp_inf="exp_inf")),
        "nadam": (optim.NAdam, dict(lr=0.02), moments),
        "radam": (optim.RAdam, dict(lr=0.02), moments),
        "amsgrad": (optim.Adam, dict(lr=0.02, betas=(0.9, 0.9), amsgrad=True), dict(max_exp_avg_sq="max_exp_avg_sq", **moments)),
    }
    yield f"PyTorch {torch.__version__.split('+')[0]}, CPU, foreach=False"
    for name, (optimizer_class, arguments, states) in trajectories.items():
        for dtype, dtype_name in ((torch.float64, "float64"), (torch.float32, "float32")):
            torch.set_default_dtype(dtype)
            parameter = torch.nn.Parameter(torch.tensor(weights(), dtype=dtype))
            optimizer = optimizer_class([parameter], foreach=False, **arguments)
            for step in range(1, STEPS + 1):
                parameter.grad = torch.tensor(gradients(step), dtype=dtype)
                optimizer.step()
                if step in RECORDED_STEPS:
                    yield name, dtype_name, step, "weight", parameter.tolist()
                    for theirs, ours in states.items():
                        yield name, dtype_name, step, ours, optimizer.state[parameter][theirs].tolist()


def optax():
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    # optax.ema averages what it is given: here the weights that an optimizer leaves behind.
    Averaged = collections.namedtuple("Averaged", "average inner ema")

    def averaged(optimizer, ema):
        def init(parameter):
            return Averaged(jnp.zeros_like(parameter), optimizer.init(parameter), ema.init(parameter))

        def update(gradient, state, parameter):
            change, inner = optimizer.update(gradient, state.inner, parameter)
            average, ema_state = ema.update(optax.apply_updates(parameter, change), state.ema)
            return change, Averaged(average, inner, ema_state)

        return optax.GradientTransformation(init, update)

    # optax.lookahead is given fast and slow weights, and changes of both.
    Synchronised = collections.namedtuple("Synchronised", "slow inner")

    def synchronised(optimizer, k, alpha):
        both = optax.lookahead(optimizer, k, alpha)

        def init(parameter):
            return Synchronised(parameter, both.init(optax.LookaheadParams(parameter, parameter)))

        def update(gradient, state, parameter):
            change, inner = both.update(gradient, state.inner, optax.LookaheadParams(parameter, state.slow))
            return change.fast, Synchronised(state.slow + change.slow, inner)

        return optax.GradientTransformation(init, update)

    trajectories = {
        "lion": (optax.lion(0.01, b1=0.9, b2=0.99, weight_decay=0.1), dict(mu="exp_avg")),
        "sign_sgd": (optax.sign_sgd(0.01), {}),
        "adabelief": (optax.adabelief(0.02), dict(mu="exp_avg", nu="exp_avg_var")),
        "yogi": (optax.chain(optax.scale_by_yogi(eps=1e-3, initial_accumulator_value=0.0), optax.scale_by_learning_rate(0.02)),
                 dict(mu="exp_avg", nu="exp_avg_sq")),
        "adamax": (optax.adamax(0.02), dict(mu="exp_avg", nu="exp_inf")),
        "trace": (optax.chain(optax.trace(0.8), optax.sgd(0.1)), dict(trace="trace")),
        "trace_nesterov": (optax.chain(optax.trace(0.8, nesterov=True), optax.sgd(0.1)), dict(trace="trace")),
        "ema": (averaged(optax.adam(0.02), optax.ema(0.9, debias=True)), dict(average="ema", mu="exp_avg", nu="exp_avg_sq")),
        "lookahead": (synchronised(optax.adam(0.02), 6, 0.4), dict(slow="slow", mu="exp_avg", nu="exp_avg_sq")),
    }
    yield f"optax {optax.__version__} on jax {jax.__version__}, CPU"

    def find(tree, name):
        if hasattr(tree, name):
            return getattr(tree, name)
        for part in tree if isinstance(tree, tuple) else ():
            found = find(part, name)
            if found is not None:
                return found
        return None

    for name, (transform, states) in trajectories.items():
        for dtype, dtype_name in ((jnp.float64, "float64"), (jnp.float32, "float32")):
            parameter = jnp.array(weights(), dtype=dtype)
            state = transform.init(parameter)
            for step in range(1, STEPS + 1):
                change, state = transform.update(jnp.array(gradients(step), dtype=dtype), state, parameter)
                parameter = optax.apply_updates(parameter, change)
                if step in RECORDED_STEPS:
                    yield name, dtype_name, step, "weight", parameter.tolist()
                    for theirs, ours in states.items():
                        yield name, dtype_name, step, ours, find(state, theirs).tolist()


def mxnet():
    import mxnet

    common = dict(wd=0.1, rescale_grad=0.5, clip_gradient=0.3)
    tight = dict(wd=0.02, rescale_grad=0.5, clip_gradient=0.3)

    # Each trajectory: class, arguments, the names that this library gives the states, in MXNet's order. "-" before a name:
    # the negative. None: a state of MXNet's alone.
    trajectories = {
        "sgd": ("SGD", dict(learning_rate=0.1, **common), ()),
        "sgd_momentum": ("SGD", dict(learning_rate=0.1, momentum=0.9, **common), ("-momentum_buffer",)),
        # Without decay: MXNet 1.9.1 adds it to the weight before the update, but to the momentum after it.
        "nag": ("NAG", dict(learning_rate=0.1, momentum=0.9, rescale_grad=0.5, clip_gradient=0.3), ("-momentum_buffer",)),
        "signum": ("Signum", dict(learning_rate=0.01, momentum=0.9, wd_lh=0.1, **common), ("-momentum_buffer",)),
        "signsgd": ("Signum", dict(learning_rate=0.01, momentum=0.0, **common), ()),
        "dcasgd": ("DCASGD", dict(learning_rate=0.1, lamda=0.4, **common), (None, "previous_weight")),
        "adam": ("Adam", dict(learning_rate=0.02, epsilon=1e-3, **common), ("exp_avg", "exp_avg_sq")),
        "adamax": ("Adamax", dict(learning_rate=0.02, **common), ("exp_avg", "exp_inf")),
        "nadam": ("Nadam", dict(learning_rate=0.02, **common), ("exp_avg", "exp_avg_sq")),
        "adagrad": ("AdaGrad", dict(learning_rate=0.1, eps=1e-3, **common), ("sum",)),
        "rmsprop": ("RMSProp", dict(learning_rate=0.02, epsilon=1e-3, clip_weights=0.6, **common), ("square_avg",)),
        "rmsprop_centered": ("RMSProp", dict(learning_rate=0.01, epsilon=1e-3, centered=True, **common),
                             ("square_avg", "grad_avg", "-momentum_buffer")),
        "adadelta": ("AdaDelta", dict(rho=0.9, epsilon=1e-4, **tight), ("square_avg", "acc_delta")),
        "ftrl": ("Ftrl", dict(learning_rate=0.1, lamda1=0.05, beta=1.0, **common), ("z", "n")),
        "ftml": ("FTML", dict(learning_rate=0.02, **common), ("d", "v", "z")),
        "test": ("Test", dict(rescale_grad=0.5), ("weight_copy",)),
    }
    yield f"MXNet {mxnet.__version__}, CPU"
    for name, (optimizer_class, arguments, states) in trajectories.items():
        for dtype in ("float64", "float32"):
            try:
                optimizer = getattr(mxnet.optimizer, optimizer_class)(**arguments)
                weight = mxnet.nd.array(weights(), dtype=dtype)
                state = optimizer.create_state(0, weight)
                lines = []
                for step in range(1, STEPS + 1):
                    optimizer.update(0, weight, mxnet.nd.array(gradients(step), dtype=dtype), state)
                    if step in RECORDED_STEPS:
                        lines.append((name, dtype, step, "weight", weight.asnumpy().tolist()))
                        tensors = state if isinstance(state, (tuple, list)) else (state,)
                        for tensor, ours in zip(tensors, states):
                            if ours is None:
                                continue
                            sign = -1.0 if ours.startswith("-") else 1.0
                            values = [sign * x for x in tensor.asnumpy().tolist()]
                            lines.append((name, dtype, step, ours.lstrip("-"), values))
                yield from lines
            except mxnet.base.MXNetError as error:
                print(f"{name} {dtype}: {str(error).splitlines()[0]}", file=sys.stderr)


def packages():
    """Optimizers of packages for PyTorch: their authors' (schedulefree, prodigyopt, dadaptation), or those of collections."""
    from importlib.metadata import version

    import dadaptation
    import prodigyopt
    import pytorch_optimizer
    import schedulefree
    import timm.optim
    import torch

    torch.set_num_threads(1)
    moments = dict(exp_avg="exp_avg", exp_avg_sq="exp_avg_sq")

    # Each trajectory: class, arguments, the states under the names that this library gives them.
    trajectories = {
        "ademamix": (pytorch_optimizer.AdEMAMix,
                     dict(lr=0.02, betas=(0.9, 0.99, 0.995), alpha=3.0, t_alpha_beta3=20, weight_decay=0.1,
                          weight_decouple=True, foreach=False),
                     dict(exp_avg_slow="exp_avg_slow", **moments)),
        "adopt": (timm.optim.Adopt,
                  dict(lr=0.02, betas=(0.9, 0.99), clip_exp=0.25, weight_decay=0.1, decoupled=True, foreach=False), moments),
        "adan": (timm.optim.Adan, dict(lr=0.02, weight_decay=0.1, foreach=False),
                 {"exp_avg_diff": "exp_avg_diff", "-neg_pre_grad": "previous_gradient", **moments}),
        "mars": (timm.optim.Mars, dict(lr=0.02, betas=(0.95, 0.99), weight_decay=0.1, optimize_1d=True), dict(last_grad="previous_gradient", **moments)),
        "schedule_free_sgd": (schedulefree.SGDScheduleFree,
                              dict(lr=0.1, weight_decay=0.1, warmup_steps=6, foreach=False), dict(z="z")),
        "schedule_free_adamw": (schedulefree.AdamWScheduleFreeReference, dict(lr=0.02, weight_decay=0.1, warmup_steps=6),
                                dict(z="z", x="x", exp_avg_sq="exp_avg_sq")),
        "prodigy_pulled": (prodigyopt.Prodigy, dict(lr=1.0, d0=1e-2, weight_decay=0.1), dict(s="s", p0="p0", **moments)),
        "prodigy_guarded_pulled": (prodigyopt.Prodigy,
                                   dict(lr=0.5, d0=1e-3, growth_rate=1.1, d_coef=2.0, use_bias_correction=True,
                                        safeguard_warmup=True),
                                   dict(s="s", p0="p0", **moments)),
        "dadapt_adam_pulled": (dadaptation.DAdaptAdam,
                               dict(lr=1.0, betas=(0.9, 0.99), d0=1e-3, growth_rate=1.5, weight_decay=0.1, decouple=True),
                               dict(s="s", **moments)),
        "dadapt_adam_corrected_pulled": (dadaptation.DAdaptAdam,
                                         dict(lr=0.5, betas=(0.9, 0.9), d0=1e-4, use_bias_correction=True),
                                         dict(s="s", **moments)),
        "cautious_adamw": (timm.optim.AdamWLegacy, dict(lr=0.02, weight_decay=0.1, caution=True, foreach=False), moments),
        "cautious_lion": (timm.optim.Lion, dict(lr=0.01, betas=(0.5, 0.9), caution=True, foreach=False),
                          dict(exp_avg="exp_avg")),
    }
    names = ("dadaptation", "prodigyopt", "pytorch_optimizer", "schedulefree", "timm")
    yield ", ".join(f"{name} {version(name)}" for name in names) + f", PyTorch {torch.__version__.split('+')[0]}, CPU"

    def train(optimizer_class, arguments, dtype, pull=0.0):
        torch.set_default_dtype(dtype)
        parameter = torch.nn.Parameter(torch.tensor(weights(), dtype=dtype))
        optimizer = optimizer_class([parameter], **arguments)
        if hasattr(optimizer, "train"):
            optimizer.train()
        for step in range(1, STEPS + 1):
            parameter.grad = torch.tensor(gradients(step), dtype=dtype) + pull * parameter.detach()
            optimizer.step()
            yield step, parameter, optimizer

    types = ((torch.float64, "float64"), (torch.float32, "float32"))
    for name, (optimizer_class, arguments, states) in trajectories.items():
        # A rate that follows the distance to a solution needs one: gradients of a quadratic function, and the formula's.
        pull = 4.0 if name.endswith("_pulled") else 0.0
        for dtype, dtype_name in types:
            for step, parameter, optimizer in train(optimizer_class, arguments, dtype, pull):
                if step not in RECORDED_STEPS:
                    continue
                yield name, dtype_name, step, "weight", parameter.tolist()
                for theirs, ours in states.items():
                    tensor = optimizer.state[parameter][theirs.lstrip("-")]
                    yield name, dtype_name, step, ours, (-tensor if theirs.startswith("-") else tensor).tolist()
                if name == "schedule_free_sgd":  # what its eval() makes of the parameter
                    x = parameter.detach().lerp(optimizer.state[parameter]["z"], weight=1 - 1 / 0.9)
                    yield name, dtype_name, step, "x", x.tolist()

    # SophiaH is given its estimate by its caller, as the step after it: every fourth gradient is for one, of 30 samples.
    for dtype, dtype_name in types:
        torch.set_default_dtype(dtype)
        parameter = torch.nn.Parameter(torch.tensor(weights(), dtype=dtype))
        optimizer = pytorch_optimizer.SophiaH([parameter], lr=0.5, betas=(0.9, 0.99), p=0.04, weight_decay=0.1, eps=1e-6,
                                              weight_decouple=True, foreach=False, update_period=10**9)
        estimate = [torch.zeros_like(parameter)]
        for step in range(1, STEPS + 1):
            gradient = torch.tensor(gradients(step), dtype=dtype)
            if step % 4 == 0:
                estimate = [30 * gradient * gradient]
                continue
            parameter.grad = gradient
            optimizer.step(hessian=estimate)
            estimate = None
            if step in RECORDED_STEPS:
                yield "sophia_g", dtype_name, step, "weight", parameter.tolist()
                for theirs, ours in (("momentum", "exp_avg"), ("hessian_moment", "hessian")):
                    yield "sophia_g", dtype_name, step, ours, optimizer.state[parameter][theirs].tolist()

    # AveragedModel averages what it is given: here the weights of updates 5, 8, 11, ...
    for dtype, dtype_name in types:
        average = None
        for step, parameter, _ in train(torch.optim.Adam, dict(lr=0.02, foreach=False), dtype):
            model = torch.nn.ParameterList([parameter])
            if average is None:
                average = torch.optim.swa_utils.AveragedModel(model)
            if step >= 5 and (step - 5) % 3 == 0:
                average.update_parameters(model)
            if step >= 5 and step in RECORDED_STEPS:
                yield "swa", dtype_name, step, "weight", parameter.tolist()
                yield "swa", dtype_name, step, "swa", average.module[0].tolist()


def main():
    library = sys.argv[1]
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name(f"{library}_updaters.txt")
    records = {"pytorch": pytorch, "optax": optax, "mxnet": mxnet, "packages": packages}[library]()
    lines = [f"# Written by record_updaters.py, which see; do not edit. Recorded with {next(records)}."]
    for trajectory, dtype, step, tensor, values in records:
        digits = 17 if dtype == "float64" else 9
        lines.append(" ".join([trajectory, dtype, str(step), tensor, *(f"{value:.{digits}g}" for value in values)]))
    output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
