#!/usr/bin/env python3
"""Measures what compiling costs: time and peak memory of including this library and of using it, beside other headers.

Every unit is a file of its own, compiled with -O2 by the compilers and include folders of compile_commands.json, without
ccache. The units take turns; the median of the turns counts. Exit status: 0; 1 if a unit does not compile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STORE = """
#include <vector>
#include <pushpull/pushpull.{header}>
void train(std::vector<pushpull::{device}> const& devices, pushpull::tensor<float, pushpull::{device}>& gradient,
           pushpull::tensor<float, pushpull::{device}>& weight) {{
  pushpull::kv_store<float, pushpull::{device}, pushpull::update::adam> store(devices);
  store.init("weight", weight);
  store.push("weight", gradient).wait();
  store.pull("weight", weight).wait();
}}
"""
THRUST = "#include <thrust/device_vector.h>\n#include <thrust/for_each.h>\n#include <thrust/transform.h>\n"
TBB = "#include <thrust/system/tbb/execution_policy.h>\n"


@dataclass
class Unit:
    name: str
    text: str
    is_cuda: bool = False
    seconds: list[float] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)


def units() -> list[Unit]:
    def include(*headers: str) -> str:
        return "".join(f"#include <{header}>\n" for header in headers)

    return [
        Unit("an empty file", ""),
        Unit("`<vector>`, `<string>`, `<ranges>`, `<functional>`", include("vector", "string", "ranges", "functional")),
        Unit("Catch2, `<catch2/catch.hpp>`", include("catch2/catch.hpp")),
        Unit("Eigen, `<Eigen/Core>`", include("Eigen/Core")),
        Unit("Thrust alone, for oneTBB: algorithms and policy", include("thrust/for_each.h", "thrust/transform.h") + TBB),
        Unit("`<pushpull/concepts.hpp>`", include("pushpull/concepts.hpp")),
        Unit("`<pushpull/lr_schedule.hpp>`", include("pushpull/lr_schedule.hpp")),
        Unit("`<pushpull/pushpull.hpp>`", include("pushpull/pushpull.hpp")),
        Unit("`kv_store<float, cpu_device<>, adam>`: init, push, pull", STORE.format(header="hpp", device="cpu_device<>")),
        Unit("nvcc: an empty file", "", True),
        Unit("nvcc: Thrust alone, algorithms and device_vector", THRUST, True),
        Unit("nvcc: `<pushpull/pushpull.cuh>`", include("pushpull/pushpull.cuh"), True),
        Unit("nvcc: `kv_store<float, cuda_device, adam>`: init, push, pull", STORE.format(header="cuh", device="cuda_device"),
             True),
    ]


def command_of(commands: list[dict[str, str]], ending: str) -> list[str]:
    """Compiler and include folders of a file that the build compiles; empty if there is none."""
    for entry in commands:
        if not entry["file"].endswith(ending):
            continue
        words = [word for word in shlex.split(entry["command"]) if not word.endswith("ccache")]
        kept = [words[0], "-std=c++20", "-O2"]
        for word, following in zip(words, [*words[1:], ""]):
            if word == "-isystem":
                kept += [word, following]
            elif word.startswith(("-I", "-isystem=", "--generate-code")):
                kept.append(word)
        return kept
    return []


def compile_once(command: list[str], unit: Unit, folder: Path) -> None:
    source = folder / ("unit.cu" if unit.is_cuda else "unit.cpp")
    source.write_text(unit.text)
    start = time.perf_counter()
    process = subprocess.Popen([*command, "-c", str(source), "-o", str(folder / "unit.o")], stderr=subprocess.PIPE)
    assert process.stderr is not None
    messages = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)  # of the process and of those that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{unit.name} does not compile:\n{messages}")
    unit.seconds.append(time.perf_counter() - start)
    unit.mebibytes.append(usage.ru_maxrss / 1024)


def version_of(compiler: str) -> str:
    lines = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    return next((line for line in lines if "release" in line), lines[0])


def table(done: list[Unit], compilers: list[str], turns: int) -> str:
    by_name = {unit.name: unit for unit in done}
    lines = [f"date: {datetime.date.today()}; {'; '.join(compilers)}; -O2, without ccache; median of {turns} turns.", "",
             "| unit | seconds | against Thrust alone | MiB at most |", "|---|---|---|---|"]
    for unit in done:
        thrust = next((u for n, u in by_name.items() if "Thrust alone" in n and u.is_cuda == unit.is_cuda), None)
        seconds = statistics.median(unit.seconds)
        ratio = f"{seconds / statistics.median(thrust.seconds):.2f}" if thrust else ""
        lines.append(f"| {unit.name} | {seconds:.2f} | {ratio} | {statistics.median(unit.mebibytes):.0f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures time and memory of compiling units that use this library.")
    parser.add_argument("--commands", type=Path, default=ROOT / "build" / "benchmarks" / "compile_commands.json",
                        help="of the benchmarks (build/benchmarks/compile_commands.json)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "compile_time.md",
                        help="the table (benchmarks/results/compile_time.md)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each unit (3)")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    arguments = parser.parse_args()
    if not arguments.commands.exists():
        parser.error(f"{arguments.commands} does not exist: benchmarks/run.sh compile-time makes it")
    if arguments.turns < 1:
        parser.error("--turns is at least 1")
    commands = json.loads(arguments.commands.read_text())
    host, cuda = command_of(commands, "compare/eigen.cpp"), command_of(commands, "compare/cuda_contenders.cu")
    if not host:
        parser.error(f"{arguments.commands} does not name benchmarks/compare/eigen.cpp")
    chosen = [unit for unit in units() if cuda or not unit.is_cuda]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for turn in range(arguments.turns):
                for unit in chosen:
                    compile_once(cuda if unit.is_cuda else host, unit, Path(folder))
                    if not arguments.quiet:
                        print(f"turn {turn + 1}: {unit.seconds[-1]:.2f} s, {unit.mebibytes[-1]:.0f} MiB: {unit.name}",
                              file=sys.stderr, flush=True)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    compilers = [version_of(command[0]) for command in (host, cuda) if command]
    arguments.output.write_text(table(chosen, compilers, arguments.turns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
