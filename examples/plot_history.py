#!/usr/bin/env python3
"""Plots the history of training runs: files of CSV or JSON lines, as pushpull::train::callbacks::history writes them.

    examples/plot_history.py run.jsonl other.csv --out history.png

A panel for each metric, a line for each file; values of the validation are dashed. Needs matplotlib.
"""
import argparse
import csv
import json
import pathlib
import sys

OTHER_COLUMNS = ["epoch", "seconds", "samples_per_second", "learning_rate"]
VALIDATION = "validation "


def read(path):
    """The epochs of a file: a dictionary of floats each; what a run has not measured is absent."""
    with open(path, newline="") as file:
        if path.suffix == ".csv":
            rows = list(csv.DictReader(file))
        else:
            rows = [json.loads(line) for line in file if line.strip()]
    return [{name: float(value) for name, value in row.items() if value not in (None, "")} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("history", nargs="+", type=pathlib.Path, help="files that end in .csv or .jsonl")
    parser.add_argument("--out", type=pathlib.Path, help="write an image here instead of opening a window")
    parser.add_argument("--metric", action="append", help="plot this metric only; may be repeated")
    options = parser.parse_args()

    try:
        import matplotlib
    except ImportError:
        sys.exit("plot_history.py: matplotlib is missing (Debian: python3-matplotlib; pip install matplotlib)")
    if options.out:
        matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        runs = {path: read(path) for path in options.history}
    except (OSError, ValueError) as error:
        sys.exit(f"plot_history.py: {error}")
    columns = dict.fromkeys(name.removeprefix(VALIDATION) for rows in runs.values() for row in rows for name in row)
    metrics = [name for name in options.metric or columns if name in columns and name not in OTHER_COLUMNS]
    if any("learning_rate" in row for rows in runs.values() for row in rows) and not options.metric:
        metrics.append("learning_rate")
    if not metrics:
        sys.exit("plot_history.py: none of the files has a metric to plot")

    figure, panels = pyplot.subplots(1, len(metrics), figsize=(5 * len(metrics), 4), squeeze=False, layout="constrained")
    for panel, metric in zip(panels[0], metrics):
        for number, (path, rows) in enumerate(runs.items()):
            for name, style in ((metric, "-"), (VALIDATION + metric, "--")):
                points = [(row["epoch"], row[name]) for row in rows if name in row]
                if points:
                    label = path.stem + (" (validation)" if style == "--" else "")
                    panel.plot(*zip(*points), style, color=f"C{number}", label=label)
        panel.set_xlabel("epoch")
        panel.set_title(metric)
        panel.legend()
    if options.out:
        figure.savefig(options.out, dpi=150)
    else:
        pyplot.show()


if __name__ == "__main__":
    main()
