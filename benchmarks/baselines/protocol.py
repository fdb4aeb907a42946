"""What every contender written in Python shares: the task, the inputs, and the lines that the driver sends.

benchmarks/compare/main.cpp states the lines; benchmarks/compare/contender.hpp the same task and inputs for C++.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

PERIOD = 1 << 16
SGD = {"learning_rate": 1e-2}
MOMENTUM = {"learning_rate": 1e-2, "momentum": 0.9}
ADAM = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
WEIGHT_DECAY = 1e-2
MUON = {"learning_rate": 2e-2, "momentum": 0.95, "weight_decay": 0.1, "epsilon": 1e-7}
NEWTON_SCHULZ = {"coefficients": (3.4445, -4.7750, 2.0315), "iterations": 5}
ROW_ADAGRAD = {"learning_rate": 1e-2, "epsilon": 1e-5}


class Unsupported(Exception):
    """The contender has no means of doing what it was asked for."""


@dataclass
class Task:
    """One case: the gradients are summed, the rule is applied to the weights, the mirrors receive them."""

    operation: str = "step"
    rule: str = "sgd"
    element: str = "float"
    gradients: int = 1
    mirrors: int = 0
    sizes: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)  # of each tensor, if they are matrices
    rows: int = 0
    row_length: int = 0
    given_rows: int = 0

    @staticmethod
    def parse(words: Sequence[str]) -> Task:
        task = Task()
        for word in words:
            name, _, value = word.partition("=")
            if name in ("sizes", "columns"):
                for run in value.split(","):
                    number, _, count = run.partition("x")
                    getattr(task, name).extend([int(number)] * int(count or 1))
            elif name in ("operation", "rule", "element"):
                setattr(task, name, value)
            elif name in ("gradients", "mirrors", "rows", "row_length", "given_rows"):
                setattr(task, name, int(value))
            else:
                raise ValueError(f"no part of a task is called {name}")
        return task


class Contender(Protocol):
    def step(self) -> None: ...

    def finish(self) -> None:
        """Returns when all steps are finished."""

    def result(self, tensor: int) -> np.ndarray:
        """The last mirror of a tensor, or the weights if there is none, as float32."""


def _table() -> np.ndarray:
    x = (np.arange(PERIOD, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(2**32)
    return ((x >> np.uint64(25)).astype(np.float32) / np.float32(128) - np.float32(0.5)).astype(np.float32)


TABLE = _table()


def _repeat(size: int, offset: int) -> np.ndarray:
    return np.resize(np.roll(TABLE, -(offset % PERIOD)), size).copy()  # np.resize gives a part of something larger


def weight(size: int) -> np.ndarray:
    """The first weights of a tensor."""
    values = _repeat(size, 12289)
    values += np.float32(1)
    return values


def gradient(source: int, size: int) -> np.ndarray:
    """A source's gradient of a tensor."""
    return _repeat(size, 4099 * source)


def row_ids(task: Task) -> np.ndarray:
    """Different rows, in no order."""
    return np.arange(task.given_rows, dtype=np.int64) * 7919 % task.rows


def _check(task: Task, contender: Contender) -> str:
    tensors = max(len(task.sizes), 1)
    total, count = 0.0, 0
    samples: list[float] = []
    for j in range(tensors):
        values = contender.result(j).reshape(-1)
        total += float(values.sum(dtype=np.float64))
        count += values.size
        if j in (0, tensors // 2, tensors - 1):
            samples += [float(values[0]), float(values[values.size // 3]), float(values[-1])]
    return " ".join(["values", repr(total / count), *map(repr, samples)])


def serve(make: Callable[[Task], Contender]) -> None:
    """Answers the driver until it says quit. What libraries print goes to standard error."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    task, contender = Task(), None

    def answer(text: str) -> None:
        print(text.replace("\n", " "), file=answers, flush=True)

    answer("ready")
    for line in sys.stdin:
        words = line.split()
        try:
            match words:
                case ["quit"]:
                    return
                case ["setup", *rest]:
                    contender = None
                    gc.collect()
                    task = Task.parse(rest)
                    contender = make(task)
                    answer("ok")
                case ["clear"]:
                    contender = None
                    gc.collect()  # compiled functions and what they hold are cycles
                    answer("ok")
                case ["run", steps] if contender is not None:
                    start = time.perf_counter()
                    for _ in range(int(steps)):
                        contender.step()
                    contender.finish()
                    answer(f"seconds {time.perf_counter() - start:.9f}")
                case ["check"] if contender is not None:
                    answer(_check(task, contender))
                case _:
                    answer(f"error not understood, or no task was set up: {line.strip()}")
        except Unsupported as reason:
            answer(f"unsupported {reason}")
        except Exception as error:  # the driver reports it and goes on without us
            contender = None
            answer(f"error {type(error).__name__}: {error}")
