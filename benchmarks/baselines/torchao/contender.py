#!/usr/bin/env python3
"""torchao's AdamW with states of 8 bits as a contender, compiled by torch.compile: contender.py THREADS"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torchao.optim import AdamW8bit

import protocol
from protocol import Task, Unsupported
from pytorch.contender import Step


def optimizer(task: Task, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    moments = {"betas": (protocol.ADAM["beta1"], protocol.ADAM["beta2"]), "eps": protocol.ADAM["epsilon"]}
    return AdamW8bit(parameters, lr=protocol.ADAM["learning_rate"], weight_decay=protocol.WEIGHT_DECAY, **moments)


def make(task: Task) -> protocol.Contender:
    if task.operation != "step" or task.rule != "adamw8":
        raise Unsupported(f"only AdamW8bit is asked for, no {task.rule}")
    return Step(task, "fused", "cpu", optimizer)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    protocol.serve(make)
