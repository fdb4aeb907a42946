#!/usr/bin/env python3
"""PyTorch's optimizers as a contender: contender.py fused|foreach|loop THREADS [DEVICE]"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

import protocol
from protocol import Task, Unsupported

Maker = Callable[[Task, list[torch.Tensor]], torch.optim.Optimizer]
ELEMENTS = {"float": torch.float32, "bfloat16": torch.bfloat16}


def optimizer_of(rule: str, variant: str, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    """The class that the rule names, in the implementation that the variant names."""
    if rule == "muon":
        if variant != "loop":
            raise Unsupported("torch.optim.Muon has one implementation, see the plain loop")
        of = protocol.MUON
        return torch.optim.Muon(parameters, lr=of["learning_rate"], weight_decay=of["weight_decay"],
                                momentum=of["momentum"], eps=of["epsilon"],
                                ns_coefficients=protocol.NEWTON_SCHULZ["coefficients"],
                                ns_steps=protocol.NEWTON_SCHULZ["iterations"])
    how = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}[variant]
    moments = {"betas": (protocol.ADAM["beta1"], protocol.ADAM["beta2"]), "eps": protocol.ADAM["epsilon"]}
    adam = {"lr": protocol.ADAM["learning_rate"], **moments}
    rules = {
        "sgd": (torch.optim.SGD, {"lr": protocol.SGD["learning_rate"]}),
        "momentum": (torch.optim.SGD, {"lr": protocol.MOMENTUM["learning_rate"], "momentum": protocol.MOMENTUM["momentum"]}),
        "adam": (torch.optim.Adam, adam),
        "adamw": (torch.optim.AdamW, {"weight_decay": protocol.WEIGHT_DECAY, **adam}),
    }
    rules["adamw8"] = rules["adamw"]  # beside states of 8 bits: it has float ones alone
    if rule not in rules:
        raise Unsupported(f"no rule {rule}")
    make, hyperparameters = rules[rule]
    try:
        return make(parameters, **hyperparameters, **how)
    except (RuntimeError, TypeError) as error:  # versions without fused kernels for this device
        raise Unsupported(f"no {variant} {rule}: {str(error).splitlines()[0]}") from error


class Step:
    """Sums into the parameters' gradients, the optimizer's step, copies."""

    def __init__(self, task: Task, variant: str, device: str, make: Maker | None = None) -> None:
        element = ELEMENTS[task.element]

        def on_device(values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
            return torch.from_numpy(values).to(device=device, dtype=dtype)

        def shaped(j: int, values: np.ndarray) -> np.ndarray:
            return values.reshape(-1, task.columns[j]) if task.columns else values

        self.device = device
        self.variant = variant
        self.parameters = [
            on_device(shaped(j, protocol.weight(n)), torch.float32).requires_grad_() for j, n in enumerate(task.sizes)
        ]
        self.gradients = [
            [on_device(shaped(j, protocol.gradient(k, n)), element) for j, n in enumerate(task.sizes)]
            for k in range(task.gradients)
        ]
        self.mirrors = [[torch.zeros(n, dtype=element, device=device) for n in task.sizes] for _ in range(task.mirrors)]
        self.is_own_sum = task.gradients > 1 or element != torch.float32
        for j, parameter in enumerate(self.parameters):
            parameter.grad = torch.zeros_like(parameter) if self.is_own_sum else self.gradients[0][j]
        self.sums = [parameter.grad for parameter in self.parameters]
        self.optimizer = make(task, self.parameters) if make else optimizer_of(task.rule, variant, self.parameters)

    def copy(self, to: list[torch.Tensor], source: list[torch.Tensor]) -> None:
        if self.variant != "loop" and hasattr(torch, "_foreach_copy_"):
            torch._foreach_copy_(to, source)
        else:
            for t, s in zip(to, source):
                t.copy_(s)

    def add(self, to: list[torch.Tensor], source: list[torch.Tensor]) -> None:
        if self.variant != "loop":
            torch._foreach_add_(to, source)
        else:
            for t, s in zip(to, source):
                t.add_(s)

    @torch.no_grad()
    def step(self) -> None:
        if self.is_own_sum:
            if len(self.gradients) == 1:
                self.copy(self.sums, self.gradients[0])
            elif self.sums[0].dtype == self.gradients[0][0].dtype:
                for total, first, second in zip(self.sums, *self.gradients[:2]):
                    torch.add(first, second, out=total)
                for more in self.gradients[2:]:
                    self.add(self.sums, more)
            else:
                self.copy(self.sums, self.gradients[0])
                for more in self.gradients[1:]:
                    self.add(self.sums, more)
        self.optimizer.step()
        for mirror in self.mirrors:
            self.copy(mirror, self.parameters)

    def finish(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def result(self, tensor: int) -> np.ndarray:
        last = self.mirrors[-1] if self.mirrors else self.parameters
        return last[tensor].detach().float().cpu().numpy()


class PushRows:
    """A sparse gradient, as an embedding has it. SGD adds it; SparseAdam is the lazy Adam."""

    def __init__(self, task: Task, device: str) -> None:
        shape = (task.rows, task.row_length)
        self.device = device
        self.table = torch.from_numpy(protocol.weight(task.rows * task.row_length).reshape(shape)).to(device)
        self.table.requires_grad_()
        values = torch.from_numpy(protocol.gradient(0, task.given_rows * task.row_length)).to(device)
        ids = torch.from_numpy(protocol.row_ids(task)).to(device)
        self.ids, self.values, self.shape = ids.reshape(1, -1), values.reshape(-1, task.row_length), shape
        if task.rule == "sgd":
            self.optimizer = torch.optim.SGD([self.table], lr=protocol.SGD["learning_rate"])
        elif task.rule == "adam":
            moments = {"betas": (protocol.ADAM["beta1"], protocol.ADAM["beta2"]), "eps": protocol.ADAM["epsilon"]}
            self.optimizer = torch.optim.SparseAdam([self.table], lr=protocol.ADAM["learning_rate"], **moments)
        else:
            raise Unsupported(f"no lazy {task.rule}")

    def step(self) -> None:
        # A new one per step, as a backward pass makes it: whether rows repeat is not known.
        self.table.grad = torch.sparse_coo_tensor(self.ids, self.values, self.shape)
        self.optimizer.step()

    def finish(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def result(self, tensor: int) -> np.ndarray:
        return self.table.detach().cpu().numpy()


class PullRows:
    """index_select by ascending ids."""

    def __init__(self, task: Task, device: str) -> None:
        self.device = device
        values = protocol.weight(task.rows * task.row_length).reshape(task.rows, task.row_length)
        self.table = torch.from_numpy(values).to(device)
        self.ids = torch.from_numpy(protocol.row_ids(task)).to(device)
        self.output = torch.zeros(task.given_rows, task.row_length, device=device)

    def step(self) -> None:
        torch.index_select(self.table, 0, torch.unique(self.ids), out=self.output)

    def finish(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def result(self, tensor: int) -> np.ndarray:
        return self.output.cpu().numpy()


def main() -> None:
    variant, threads = sys.argv[1], int(sys.argv[2])
    device = sys.argv[3] if len(sys.argv) > 3 else "cpu"
    torch.set_num_threads(threads)

    def make(task: Task) -> protocol.Contender:
        if task.operation == "step":
            return Step(task, variant, device)
        if variant != "loop":
            raise Unsupported("rows have one implementation, see the plain loop" if "rows" in task.operation else
                              f"no {task.operation}")
        if task.operation == "push_rows":
            return PushRows(task, device)
        if task.operation == "pull_rows":
            return PullRows(task, device)
        raise Unsupported(f"no {task.operation}")

    protocol.serve(make)


if __name__ == "__main__":
    main()
