#!/usr/bin/env python3
"""Moves weights and states between a store and torch.optim.AdamW: adamw_check.py <the program of cross_check.cpp>

Ends with 77, which ctest reports as skipped, where torch, safetensors or numpy is missing.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy  # noqa: F401: safetensors.torch needs it
    import safetensors
    import torch
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SHAPES = {"fc1.weight": (7, 5), "fc1.bias": (7,), "empty": (0, 3), "scale": (1,)}


def load_adamw(parameters, weights, states):
    """An AdamW with the weights and states of files that a store wrote. `parameters`: {name: tensor that requires a gradient}."""
    with torch.no_grad():
        for name, weight in load_file(weights).items():
            parameters[name].copy_(weight)
    optimizer = torch.optim.AdamW(parameters.values())
    values = load_file(states)
    with safetensors.safe_open(states, framework="pt") as file:
        metadata = file.metadata()
    state = {i: {"step": torch.tensor(float(metadata[f"{name}/steps"])),
                 "exp_avg": values[f"{name}/exp_avg"], "exp_avg_sq": values[f"{name}/exp_avg_sq"]}
             for i, name in enumerate(parameters)}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return optimizer


def save_adamw(parameters, optimizer, weights, states):
    """Writes the files that checkpoint::copy and load_optimizer_states read."""
    save_file({name: parameter.detach().contiguous() for name, parameter in parameters.items()}, weights)
    values = {f"{name}/{key}": optimizer.state[parameter][key].contiguous()
              for name, parameter in parameters.items() for key in ("exp_avg", "exp_avg_sq")}
    metadata = {f"{name}/steps": str(int(optimizer.state[parameter]["step"])) for name, parameter in parameters.items()}
    save_file(values, states, metadata={"format": "pushpull.optimizer_states", "version": "1", "rule": "adamw",
                                        "rule.states": "adamw", **metadata})


def expect_close(found, expected):
    assert set(found) == set(expected), (set(found), set(expected))
    for name, value in found.items():
        assert torch.allclose(value, expected[name].detach(), rtol=1e-6, atol=1e-8), (name, value, expected[name])


def check(program, folder):
    torch.manual_seed(5)
    files = iter(range(100))

    def path(kind):
        return str(folder / f"{kind}-{next(files)}.safetensors")

    def random_file():
        tensors = {name: torch.randn(shape) for name, shape in SHAPES.items()}
        name = path("tensors")
        save_file(tensors, name)
        return name, tensors

    def our_step(weights, states, gradients):
        new = path("weights"), path("states")
        subprocess.run([program, "step", weights, states, gradients, *new], check=True)
        return new

    def their_step(optimizer, parameters, gradients):
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].clone()
        optimizer.step()

    weights, states = random_file()[0], "-"
    for _ in range(3):
        weights, states = our_step(weights, states, random_file()[0])
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
    optimizer = load_adamw(parameters, weights, states)
    for _ in range(2):  # the next steps of both agree
        gradients, tensors = random_file()
        weights, states = our_step(weights, states, gradients)
        their_step(optimizer, parameters, tensors)
        expect_close(load_file(weights), parameters)

    weights, states = path("weights"), path("states")
    their_step(optimizer, parameters, random_file()[1])
    save_adamw(parameters, optimizer, weights, states)  # and back
    gradients, tensors = random_file()
    new_weights, new_states = our_step(weights, states, gradients)
    their_step(optimizer, parameters, tensors)
    expect_close(load_file(new_weights), parameters)
    found = load_file(new_states)
    for name, parameter in parameters.items():
        for key in ("exp_avg", "exp_avg_sq"):
            expect_close({key: found[f"{name}/{key}"]}, {key: optimizer.state[parameter][key]})
    assert int(optimizer.state[parameters["scale"]]["step"]) == 7


def main():
    with tempfile.TemporaryDirectory() as folder:
        check(sys.argv[1], pathlib.Path(folder))
    print(f"torch {torch.__version__}: AdamW goes on where a store was, and the other way round")


if __name__ == "__main__":
    main()
