#!/usr/bin/env python3
"""One rank of PyTorch's training step over gloo: ddp.py TURNS, with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set.

The parameters are BERT-base's, as in benchmarks/support/models.hpp. DistributedDataParallel reduces the gradients in
buckets of 25 MiB while the backward pass gives them. Then torch.optim.Adam, fused, updates everything on every rank, or
ZeroRedundancyOptimizer updates a share on each rank, which broadcasts it. The backward pass only adds random gradients
to the buckets. The same pass without communication is subtracted from every time, so that a figure is what the
reduction and the optimizer add to a training step.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

WIDTH = 768


def bert_base() -> list[tuple[int, ...]]:
    square, vector = (WIDTH, WIDTH), (WIDTH,)
    layer = [square, vector] * 4 + [vector, vector, (4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), *[vector] * 3]
    return [(30522, WIDTH), (512, WIDTH), (2, WIDTH), vector, vector, *layer * 12, square, vector]


class GivenGradients(torch.autograd.Function):
    """A scalar whose gradients are those that its forward pass was given."""

    @staticmethod
    def forward(ctx, gradients: list[torch.Tensor], *parameters: torch.Tensor) -> torch.Tensor:
        ctx.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, *ctx.gradients)


class Model(torch.nn.Module):
    def __init__(self, shapes: list[tuple[int, ...]], rank: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(rank)
        self.weights = torch.nn.ParameterList(torch.ones(shape) for shape in shapes)
        self.given = [torch.randn(shape, generator=generator) for shape in shapes]

    def forward(self) -> torch.Tensor:
        return GivenGradients.apply(self.given, *self.weights)


def seconds_of(step: Callable[[], object]) -> float:
    """Those of the slowest rank."""
    torch.distributed.barrier()
    start = time.perf_counter()
    step()
    seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
    torch.distributed.all_reduce(seconds, torch.distributed.ReduceOp.MAX)
    return seconds.item()


def main() -> None:
    turns = int(sys.argv[1])
    torch.distributed.init_process_group("gloo")
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    threads = max(1, (os.cpu_count() or 1) // ranks)
    torch.set_num_threads(threads)

    model = Model(bert_base(), rank)
    # The gradients lie in the buckets: nothing is copied before and after a reduction.
    reducing = DistributedDataParallel(model, bucket_cap_mb=25, gradient_as_bucket_view=True)
    adam = {"lr": 1e-3, "fused": True}
    replicated = torch.optim.Adam(model.parameters(), **adam)
    sharded = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, parameters_as_bucket_view=True, **adam)

    def time_step(optimizer: torch.optim.Optimizer | None) -> float:
        """A backward pass, with communication and the optimizer's step if there is one."""
        model.zero_grad(set_to_none=False)
        with contextlib.nullcontext() if optimizer else reducing.no_sync():
            loss = reducing()

        def step() -> None:
            loss.backward()
            if optimizer:
                optimizer.step()

        return seconds_of(step)

    backward = "subtracted: the backward pass alone"
    steps = {backward: None, "PyTorch DDP, Adam": replicated, "PyTorch DDP, ZeroRedundancyOptimizer": sharded}
    for _ in range(2):  # DDP arranges its buckets after the first step
        for optimizer in steps.values():
            if optimizer:
                time_step(optimizer)
    expected = model.given[-1].clone()
    torch.distributed.all_reduce(expected)
    torch.testing.assert_close(model.weights[-1].grad, expected / ranks)

    best = dict.fromkeys(steps, math.inf)
    for _ in range(turns):
        for title, optimizer in steps.items():
            best[title] = min(best[title], time_step(optimizer))
    if rank == 0:
        elements = sum(weight.numel() for weight in model.parameters())
        print(f"PyTorch {torch.__version__}: {elements * 4 >> 20} MiB of float in {len(model.given)} parameters, "
              f"{ranks} ranks of {threads} threads; best of {turns} turns")
        for title, seconds in best.items():
            milliseconds = (seconds - (best[backward] if steps[title] else 0)) * 1e3
            print(f"{title:46} {milliseconds:8.1f} ms")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
