"""What the sampled weights have to be after some steps, computed in double precision from the formulas."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cases import Case

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "baselines"))
import protocol  # noqa: E402


def _inputs(case: Case, positions: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    def at(offset: int) -> np.ndarray:
        return protocol.TABLE[(positions + offset) % protocol.PERIOD].astype(np.float64)

    return 1 + at(12289), [at(4099 * source) for source in range(case.gradients)]


def _apply(rule: str, w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        if rule == "sgd":
            w = w - protocol.SGD["learning_rate"] * g
        elif rule == "momentum":
            m = protocol.MOMENTUM["momentum"] * m + g
            w = w - protocol.MOMENTUM["learning_rate"] * m
        else:
            rate, b1, b2 = (protocol.ADAM[name] for name in ("learning_rate", "beta1", "beta2"))
            if rule == "adamw":
                w = w * (1 - rate * protocol.WEIGHT_DECAY)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            w = w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + protocol.ADAM["epsilon"])
    return w


def _two_bit(gradients: list[np.ndarray], steps: int) -> list[np.ndarray]:
    threshold, residuals, sums = 0.5, [np.zeros_like(g) for g in gradients], []
    for _ in range(steps):
        total = np.zeros_like(gradients[0])
        for residual, g in zip(residuals, gradients):
            residual += g
            sent = np.where(residual >= threshold, threshold, np.where(residual <= -threshold, -threshold, 0.0))
            residual -= sent
            total += sent
        sums.append(total)
    return sums


def samples(case: Case, steps: int) -> np.ndarray:
    """Elements 0, n/3 and n-1 of the first, the middle and the last tensor."""
    if case.rows:
        return _row_samples(case, steps)
    expected: list[np.ndarray] = []
    for j in sorted({0, len(case.sizes) // 2, len(case.sizes) - 1}):
        n = case.sizes[j]
        w, gradients = _inputs(case, np.array([0, n // 3, n - 1]))
        sums = _two_bit(gradients, steps) if case.operation == "two_bit" else [np.sum(gradients, axis=0)] * steps
        expected.append(_apply(case.rule, w, sums))
    return np.concatenate(expected)


def _row_samples(case: Case, steps: int) -> np.ndarray:
    ids = np.arange(case.given_rows, dtype=np.int64) * 7919 % case.rows
    length = case.row_length
    if case.operation == "pull_rows":
        n = case.given_rows * length
        positions = np.array([0, n // 3, n - 1])
        return _inputs(case, np.sort(ids)[positions // length] * length + positions % length)[0]
    n = case.rows * length
    values = []
    for position in (0, n // 3, n - 1):
        w, _ = _inputs(case, np.array([position]))
        found = np.flatnonzero(ids == position // length)
        if found.size:  # the row came: its gradient stands at its place among those given
            gradient = _inputs(case, found * length + position % length)[1][0]
            w = _apply(case.rule, w, [gradient] * steps)
        values.append(w)
    return np.concatenate(values)


def tolerance(case: Case) -> float:
    """By how much a right contender may be off: rounding of its element type."""
    return 2.0**-7 if case.element == "bfloat16" else 5e-6
