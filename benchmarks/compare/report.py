#!/usr/bin/env python3
"""Makes the tables (Markdown) and plots (PNG, SVG) of a comparison from its JSON lines: report.py FILE.jsonl"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
OURS = "ours"
TITLES = {
    "a": "One array, in place",
    "b": "Replicas: K gradients summed, updated, written to R mirrors",
    "c": "Shapes of real models",
    "d": "5,000 tensors of 2,000 elements",
    "e": "100,000 of 1,000,000 rows of 64 floats",
    "f": "2-bit compressed gradients",
    "g": "bfloat16 gradients and mirrors, float weights",
    "h": "Cost curves: 2²² elements",
    "i": "AdamW in place, one array of 2²⁵ floats and the shapes of BERT-base",
    "j": "AdamW in place with states of 8 bits (PyTorch and DeepSpeed: float states), one array of 2²⁵ floats",
    "k": "Muon over the six matrices of a transformer layer, 5 Newton-Schulz iterations",
    "l": "Row-wise AdaGrad, 100,000 of 1,000,000 rows of 64 floats",
}


def read(path: Path) -> tuple[Row, list[Row]]:
    """What the run was, and its rows."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return lines[0], lines[1:]


def write(path: Path) -> None:
    """Everything that is made from the file, beside it."""
    about, rows = read(path)
    if not rows:
        return
    path.with_suffix(".md").write_text(markdown(path, about, rows))
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plots: matplotlib is not installed, benchmarks/baselines/install.sh does it", file=sys.stderr)
        return
    plt.switch_backend("agg")
    plot_cases(path.with_suffix(""), rows)
    plot_curves(path.with_name(path.stem + "_curves"), rows)


def distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def markdown(path: Path, about: Row, rows: list[Row]) -> str:
    lines = ["; ".join(f"{name}: {value}" for name, value in about.items() if value != ""), ""]
    lines += ["How many times as long as ours the others took, by the median of their turns; ours in time per step and",
              "least bytes per second. Below 1.00, in bold, the other one was faster. In brackets, where it differs by",
              "more than a tenth: the same of the best turns.", ""]
    notes: list[str] = []
    for group in sorted(distinct([row["group"] for row in rows])):
        lines += [f"### ({group}) {TITLES.get(group, group)}", ""] + table([r for r in rows if r["group"] == group], notes)
    if notes:
        lines += [f"{i}. {note}" for i, note in enumerate(notes, start=1)] + [""]
    lines += [f"![The same as dots]({path.stem}.png)", ""]
    if any(row["x"] is not None for row in rows):
        lines += [f"![Cost curves]({path.stem}_curves.png)", ""]
    versions = distinct([row["version"] for row in rows if row["version"]])
    if versions:
        lines += ["Versions: " + "; ".join(versions) + ".", ""]
    return "\n".join(lines)


def table(rows: list[Row], notes: list[str]) -> list[str]:
    case_names = distinct([row["case"] for row in rows])
    contenders = distinct([row["contender"] for row in rows])
    found = {(row["contender"], row["case"]): row for row in rows}
    if len(case_names) > 8:  # many columns are read worse than many rows
        lines = ["| | " + " | ".join(contenders) + " |", "|---" * (len(contenders) + 1) + "|"]
        for name in case_names:
            lines.append(f"| {name} | " + " | ".join(cell(found.get((c, name)), notes) for c in contenders) + " |")
    else:
        lines = ["| | " + " | ".join(case_names) + " |", "|---" * (len(case_names) + 1) + "|"]
        for contender in contenders:
            lines.append(f"| {contender} | " + " | ".join(cell(found.get((contender, n)), notes) for n in case_names) + " |")
    return [*lines, ""]


def cell(row: Row | None, notes: list[str]) -> str:
    if row is None:
        return ""
    if row["status"] != "ok":
        reason = row["reason"] if len(row["reason"]) <= 160 else row["reason"][:160] + " ..."
        note = f"{row['contender']}: {reason}"
        if note not in notes:
            notes.append(note)
        mark = {"unsupported": "–", "not installed": "not installed", "failed": "failed"}[row["status"]]
        return f"{mark} [{notes.index(note) + 1}]"
    if row["contender"] == OURS:
        return f"{duration(row['seconds'])}, {row['bytes'] / row['seconds'] * 1e-9:.1f} GB/s"
    ratio, best = row["ratio"], row["best_ratio"]
    text = f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"
    if ratio < 0.995:
        text = f"**{text}**"
    return text if abs(best / ratio - 1) <= 0.1 else f"{text} ({best:.2f})"


def save(figure: Any, stem: Path) -> None:
    for suffix in (".png", ".svg"):
        # Without the date, so that the same figures are the same file.
        figure.savefig(stem.with_name(stem.name + suffix), dpi=110, metadata={"Date": None} if suffix == ".svg" else None)


def plot_cases(stem: Path, rows: list[Row]) -> None:
    """A line per case, a dot per contender."""
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "pushpull"
    measured = [r for r in rows if r["group"] != "h" and r["status"] == "ok"]
    cases = sorted(distinct([(r["group"], r["case"]) for r in measured]), key=lambda case: case[0])
    if not cases:
        return
    names = distinct([r["contender"] for r in rows if r["status"] == "ok"])
    figure, ax = plt.subplots(figsize=(11, 1.5 + 0.33 * len(cases)), layout="constrained")
    for number, name in enumerate(names):
        points = [(r["ratio"], cases.index((r["group"], r["case"]))) for r in measured if r["contender"] == name]
        if points:
            style = {"s": 60, "zorder": 3} if name == OURS else {"s": 28, "zorder": 2}
            x, y = zip(*points)
            ax.scatter(x, y, label=name, color=plt.get_cmap("tab20")(number % 20), marker="osD^v<>PX*ph"[number % 12], **style)
    ax.set_yticks(range(len(cases)), [f"({group}) {case}" for group, case in cases], fontsize=8)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xlabel("time of a step, ours = 1 (logarithmic)")
    ax.axvline(1, color="black", linewidth=0.8, zorder=1)
    ax.grid(alpha=0.3, which="both", axis="x")
    ax.grid(alpha=0.3, axis="y")
    ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, stem)
    plt.close(figure)


def plot_curves(stem: Path, rows: list[Row]) -> None:
    import matplotlib.pyplot as plt

    measured = [r for r in rows if r["group"] == "h" and r["status"] == "ok"]
    kinds = [("threads=", "threads"), ("K=R=", "K = R"), ("tensors", "tensors")]
    parts = []
    for word, label in kinds:
        chosen = [r for r in measured if word in r["case"] and (word != "K=R=" or "threads=" not in r["case"])]
        if chosen:
            parts.append((label, chosen))
    if not parts:
        return
    figure, axes = plt.subplots(1, len(parts), figsize=(5 * len(parts), 4), squeeze=False, layout="constrained")
    for ax, (label, chosen) in zip(axes[0], parts):
        for name in distinct([r["contender"] for r in chosen]):
            points = sorted((r["x"], r["seconds"] * 1e3) for r in chosen if r["contender"] == name)
            ax.plot(*zip(*points), marker="o", markersize=3, linewidth=2 if name == OURS else 1, label=name)
        ax.set_xlabel(label)
        ax.set_ylabel("ms per step")
        ax.set_yscale("log")
        if label != "K = R" and len({r["x"] for r in chosen}) > 2:
            ax.set_xscale("log")
        ax.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7)
    save(figure, stem)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit(f"usage: {sys.argv[0]} FILE.jsonl")
    write(Path(sys.argv[1]))
