"""The cases of the comparison: what is done, by whom, and how many bytes it has to move."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

STATES = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
# Bytes of the states of an element: floats; codes of 8 bits with a float for each block of 256; nothing but a float per row.
STATE_BYTES = {rule: 4 * count for rule, count in STATES.items()} | {"adamw8": 2 * (1 + 4 / 256), "muon": 4, "row_adagrad": 0}
ELEMENT_BYTES = {"float": 4, "bfloat16": 2}
EVERYBODY = re.compile("")
# Large models take several GB from each, and their arrays most of the run's time.
IN_PLACE = re.compile(r"^ours|^loop|^Eigen$|PyTorch|JAX")
REPLICATED = re.compile(r"^ours|three steps|^Eigen$|PyTorch \(fused\)|MXNet")
# Those who know rows or compression, or could.
SPECIAL = re.compile(r"^ours$|^loop$|\(loop\)|MXNet|JAX")
# Cost curves have many points: those whose curves tell something.
CURVES = re.compile(r"^ours|^loop$|three steps, streaming|PyTorch \(fused\)|MXNet|JAX|one element|copy kernel")


@dataclass(frozen=True)
class Case:
    """`gradients` sources are summed, the rule is applied, `mirrors` further arrays receive the new weights."""

    group: str  # a ... h, as in the table
    name: str  # column of the table
    rule: str = "adam"
    gradients: int = 1
    mirrors: int = 0
    sizes: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()  # of each tensor, if they are matrices
    element: str = "float"
    operation: str = "step"
    rows: int = 0
    row_length: int = 0
    given_rows: int = 0
    threads: int | None = None  # unless the run's
    who: re.Pattern[str] = EVERYBODY
    x: float | None = None  # where a curve's point lies

    @property
    def key(self) -> str:
        return f"{self.group}/{self.name}"

    @property
    def elements(self) -> int:
        return sum(self.sizes) or self.given_rows * self.row_length

    @property
    def moved_bytes(self) -> int:
        """The least that a step moves: gradients and states read, weights and states written, mirrors written."""
        kept = 2 * (4 + STATE_BYTES[self.rule])  # weight and states, read and written
        if self.operation == "pull_rows":
            return 8 * self.elements
        if self.operation == "two_bit":  # each source and residual read, residual and codes written, codes read
            encoding = self.gradients * (4 + 4 + 4 + 0.25 + 0.25)
            return round(self.elements * (encoding + kept + 4 * self.mirrors))
        of_rows = 8 * self.given_rows if self.rule == "row_adagrad" else 0
        element = ELEMENT_BYTES[self.element]
        return round(self.elements * (element * (self.gradients + self.mirrors) + kept)) + of_rows

    @property
    def held_bytes(self) -> int:
        """About what a contender allocates."""
        states = 2 if self.rule == "adamw8" else STATE_BYTES[self.rule] // 4  # some decode all states at a time
        if self.rows:
            return 4 * (self.rows * self.row_length * (2 + states) + 4 * self.elements)
        element = ELEMENT_BYTES[self.element]
        residuals = 4 * self.gradients if self.operation == "two_bit" else 0
        return self.elements * (element * (self.gradients + self.mirrors) + 4 * (2 + states) + residuals)

    def words(self) -> str:
        """As contenders are told."""
        parts = {"operation": self.operation, "rule": self.rule, "element": self.element}
        parts |= {"gradients": str(self.gradients), "mirrors": str(self.mirrors)}
        if self.sizes:
            parts["sizes"] = ",".join(f"{size}x{count}" for size, count in _runs(self.sizes))
            if self.columns:
                parts["columns"] = ",".join(f"{number}x{count}" for number, count in _runs(self.columns))
        else:
            parts |= {"rows": str(self.rows), "row_length": str(self.row_length), "given_rows": str(self.given_rows)}
        return " ".join(f"{name}={value}" for name, value in parts.items())


def _runs(sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    first = 0
    for i in range(1, len(sizes) + 1):
        if i == len(sizes) or sizes[i] != sizes[first]:
            yield sizes[first], i - first
            first = i


def _counts(threads: int) -> list[int]:
    """1, 2, 4, ... and all."""
    return sorted({1 << i for i in range(threads.bit_length()) if 1 << i <= threads} | {threads})


def cpu_cases(models: Mapping[str, tuple[int, ...]], threads: int, divisor: int) -> list[Case]:
    """All cases; with a divisor above 1 smaller ones, which show that everything works."""

    def one(log2: int) -> tuple[int, ...]:
        return ((1 << log2) // divisor,)

    def tensors(count: int, size: int) -> tuple[int, ...]:
        return (size,) * max(count // divisor, 1)

    cases = [Case("a", rule, rule, sizes=one(25)) for rule in STATES]
    cases += [Case("b", f"adam K=R={k}", gradients=k, mirrors=k, sizes=one(24)) for k in (2, 4, 8)]
    cases += [Case("b", f"{rule} K=R=4", rule, 4, 4, one(24), who=REPLICATED) for rule in ("sgd", "momentum")]
    cases += [Case("b", "adam K=4, R=3", gradients=4, mirrors=3, sizes=one(24), who=REPLICATED)]
    for name, sizes in models.items():
        shrunk = tuple(max(size // divisor, 1) for size in sizes)
        cases += [Case("c", f"{name} adamw in place", "adamw", sizes=shrunk, who=IN_PLACE)]
    for name, sizes in models.items():
        shrunk = tuple(max(size // divisor, 1) for size in sizes)
        cases += [Case("c", f"{name} adam K=R=4", gradients=4, mirrors=4, sizes=shrunk, who=REPLICATED)]
    cases += [Case("d", "adamw in place", "adamw", sizes=tensors(5000, 2000))]
    cases += [Case("d", "adam K=R=1", mirrors=1, sizes=tensors(5000, 2000))]
    for name, rule in (("push sgd", "sgd"), ("push adam", "adam"), ("pull", "sgd")):
        operation = "pull_rows" if name == "pull" else "push_rows"
        cases += [Case("e", name, rule, operation=operation, rows=1_000_000 // divisor, row_length=64,
                       given_rows=100_000 // divisor, who=SPECIAL)]
    cases += [Case("f", "momentum K=4, R=1", "momentum", 4, 1, one(24), operation="two_bit", who=SPECIAL)]
    cases += [Case("f", "the same, uncompressed", "momentum", 4, 1, one(24), who=SPECIAL)]
    cases += [Case("g", f"adamw K=R={k}", "adamw", k, k, one(24), "bfloat16") for k in (1, 4)]
    for k in (1, 2, 3, 4, 6, 8):
        cases += [Case("h", f"adam K=R={k}", gradients=k, mirrors=k, sizes=one(22), who=CURVES, x=k)]
    total = (1 << 22) // divisor
    for count in (1, 10, 100, 1000, 10000):
        sizes = (max(total // count, 1),) * min(count, total)
        cases += [Case("h", f"adam in place, {count} tensors", sizes=sizes, who=CURVES, x=count)]
    # Last, because processes are started anew for another number of threads.
    for count in reversed(_counts(threads)):
        cases += [Case("h", f"adam K=R=4, threads={count}", gradients=4, mirrors=4, sizes=one(22), threads=count,
                       who=CURVES, x=count)]
    return cases


def gpu_cases(models: Mapping[str, tuple[int, ...]], divisor: int) -> list[Case]:
    def one(log2: int) -> tuple[int, ...]:
        return ((1 << log2) // divisor,)

    cases = [Case("a", f"{rule} K=R=1", rule, 1, 1, one(26)) for rule in STATES]
    cases += [Case("a", f"{rule} in place", rule, sizes=one(26)) for rule in STATES]
    cases += [Case("b", f"adam K=R={k}", gradients=k, mirrors=k, sizes=one(24)) for k in (2, 4, 8)]
    for name, sizes in models.items():
        cases += [Case("c", f"{name} adamw in place", "adamw", sizes=tuple(max(n // divisor, 1) for n in sizes))]
    cases += [Case("d", "adamw in place", "adamw", sizes=(2000,) * max(5000 // divisor, 1))]
    cases += [Case("g", f"adamw K=R={k}", "adamw", k, k, one(25), "bfloat16") for k in (1, 4)]
    for k in (1, 2, 3, 4, 6, 8):
        cases += [Case("h", f"adam K=R={k}", gradients=k, mirrors=k, sizes=one(24), who=CURVES, x=k)]
    total = (1 << 24) // divisor
    for count in (1, 10, 100, 1000, 10000):
        sizes = (max(total // count, 1),) * min(count, total)
        cases += [Case("h", f"adam in place, {count} tensors", sizes=sizes, who=CURVES, x=count)]
    return cases


def peer_cases(models: Mapping[str, tuple[int, ...]], divisor: int) -> list[Case]:
    """Optimizers that other libraries are known for."""
    one = ((1 << 25) // divisor,)
    bert = tuple(max(size // divisor, 1) for size in models["bert_base"])

    def matrices(*shapes: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        small = [[max(round(n / divisor**0.5), 1) for n in shape] for shape in shapes]
        return {"sizes": tuple(r * c for r, c in small), "columns": tuple(c for _, c in small)}

    floats = re.compile(r"^ours|^loop$|PyTorch \(fused\)|DeepSpeed")
    codes = re.compile(r"^ours$|torchao|bitsandbytes|PyTorch \(fused\)|DeepSpeed")
    cases = [Case("i", "one array", "adamw", sizes=one, who=floats)]
    cases += [Case("i", "bert_base", "adamw", sizes=bert, who=floats)]
    cases += [Case("j", "one array", "adamw8", sizes=one, who=codes)]
    layer = matrices(*[(768, 768)] * 4, (3072, 768), (768, 3072))
    cases += [Case("k", "layer of bert_base", "muon", who=re.compile(r"^ours$|PyTorch \(loop\)"), **layer)]
    cases += [Case("l", "push", "row_adagrad", operation="push_rows", rows=1_000_000 // divisor, row_length=64,
                   given_rows=100_000 // divisor, who=re.compile("^ours$|FBGEMM"))]
    return cases
