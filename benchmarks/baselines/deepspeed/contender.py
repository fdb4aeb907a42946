#!/usr/bin/env python3
"""DeepSpeed's CPUAdam as a contender, compiled for this processor at its first use: contender.py THREADS"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where ninja is

import torch
from deepspeed.ops.adam import DeepSpeedCPUAdam

import protocol
from protocol import Task, Unsupported
from pytorch.contender import Step


def optimizer(task: Task, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    moments = {"betas": (protocol.ADAM["beta1"], protocol.ADAM["beta2"]), "eps": protocol.ADAM["epsilon"]}
    decoupled = task.rule != "adam"
    decay = protocol.WEIGHT_DECAY if decoupled else 0.0
    return DeepSpeedCPUAdam(
        parameters, lr=protocol.ADAM["learning_rate"], weight_decay=decay, adamw_mode=decoupled, **moments
    )


def make(task: Task) -> protocol.Contender:
    if task.operation != "step" or task.rule not in ("adam", "adamw", "adamw8"):  # adamw8: float states all the same
        raise Unsupported(f"CPUAdam has no {task.rule}")
    return Step(task, "fused", "cpu", optimizer)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    protocol.serve(make)
