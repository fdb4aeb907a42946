"""What the sampled weights have to be after some steps, computed in double precision from the formulas."""

from __future__ import annotations

import sys
from functools import lru_cache
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
            if rule != "adam":
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


def _orthogonal(u: np.ndarray) -> np.ndarray:
    """A matrix with singular values near 1, by Newton-Schulz iterations."""
    a, b, c = protocol.NEWTON_SCHULZ["coefficients"]
    x = u.T if u.shape[0] > u.shape[1] else u
    x = x / max(np.linalg.norm(x), protocol.MUON["epsilon"])
    for _ in range(protocol.NEWTON_SCHULZ["iterations"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if u.shape[0] > u.shape[1] else x


@lru_cache
def _muon(size: int, columns: int, steps: int) -> np.ndarray:
    rate, momentum, decay = (protocol.MUON[name] for name in ("learning_rate", "momentum", "weight_decay"))
    g = protocol.gradient(0, size).astype(np.float64).reshape(-1, columns)
    w, m = protocol.weight(size).astype(np.float64).reshape(-1, columns), np.zeros_like(g)
    factor = max(1.0, g.shape[0] / columns) ** 0.5
    for _ in range(steps):
        m = momentum * m + (1 - momentum) * g
        w = w * (1 - rate * decay) - rate * factor * _orthogonal(momentum * m + (1 - momentum) * g)
    return w.reshape(-1)


def samples(case: Case, steps: int) -> np.ndarray:
    """Elements 0, n/3 and n-1 of the first, the middle and the last tensor."""
    if case.rows:
        return _row_samples(case, steps)
    expected: list[np.ndarray] = []
    for j in sorted({0, len(case.sizes) // 2, len(case.sizes) - 1}):
        n = case.sizes[j]
        if case.rule == "muon":
            expected.append(_muon(n, case.columns[j], steps)[[0, n // 3, n - 1]])
            continue
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
            if case.rule == "row_adagrad":
                square = np.mean(_inputs(case, found * length + np.arange(length))[1][0] ** 2)
                roots = np.sqrt(square * np.arange(1, steps + 1)) + protocol.ROW_ADAGRAD["epsilon"]
                w = w - protocol.ROW_ADAGRAD["learning_rate"] * gradient * np.sum(1 / roots)
            else:
                w = _apply(case.rule, w, [gradient] * steps)
        values.append(w)
    return np.concatenate(values)


def tolerance(case: Case, steps: int) -> float:
    """By how much a right contender may be off: rounding of its element type, of its codes, or of its products."""
    if case.rule == "adamw8":
        # Second moments have eight codes per octave, so their root is off by up to a sixteenth; momentum is off by up to a part in
        # 127 of the block's greatest, which is little for the sampled gradients. So a tenth of the way that all steps go. Weight
        # decay is less than that: the cases of AdamW in float check it.
        return 0.1 * steps * protocol.ADAM["learning_rate"]
    if case.rule == "muon":
        # PyTorch's 15 products of matrices keep 8 bits: their elements are off by a hundredth of the way in the mean, single ones
        # by more. An element of a matrix with orthogonal rows of length 1 goes 1 / sqrt(rows) of the rate in a step.
        rows = min(min(size // columns, columns) for size, columns in zip(case.sizes, case.columns))
        return 0.05 * steps * protocol.MUON["learning_rate"] / max(rows, 1) ** 0.5
    return 2.0**-7 if case.element == "bfloat16" else 5e-6
