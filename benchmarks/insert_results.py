#!/usr/bin/env python3
"""Inserts tables of benchmarks/results/ into pages, between these lines: insert_results.py [PAGE...], docs/performance.md

    <!-- results: NAME.md -->
    <!-- end of results -->

A table that does not exist leaves what stands there. Exit status: 0; 1 if a page has no such lines or lacks their end.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = re.compile(r"<!-- results: (\S+) -->\n")
END = "<!-- end of results -->"


def table(name: str, page: Path) -> str | None:
    """The text of a file of results, with its links as they have to be in the page."""
    source = RESULTS / name
    if not source.exists():
        print(f"{page}: {source} does not exist, nothing inserted", file=sys.stderr)
        return None
    prefix = os.path.relpath(RESULTS, page.resolve().parent)
    return re.sub(r"\]\((?!http|/)", f"]({prefix}/", source.read_text().strip()) + "\n"


def insert(page: Path) -> None:
    text, done, position = page.read_text(), "", 0
    for begin in BEGIN.finditer(text):
        end = text.find(END, begin.end())
        if end < 0:
            raise ValueError(f"{page}: no line {END} behind {begin.group().strip()}")
        content = table(begin.group(1), page)
        done += text[position : begin.end()] + (text[begin.end() : end] if content is None else content)
        position = end
    if position == 0:
        raise ValueError(f"{page}: no line <!-- results: NAME.md -->")
    page.write_text(done + text[position:])


def main() -> int:
    try:
        for page in map(Path, sys.argv[1:] or [str(ROOT / "docs" / "performance.md")]):
            insert(page)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
