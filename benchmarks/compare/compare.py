#!/usr/bin/env python3
"""Runs this library and its baselines over the same work, and writes what each took.

What makes it fair:
  * Every contender is a process that lives through the run and holds the case's arrays. They take turns, another one
    first each time; a turn is as many steps as take 50 ms. The median over the turns counts, best is given beside it.
  * All get the same number of threads, element types, inputs and hyperparameters. After three steps sampled weights are
    compared with the formulas' in double precision, and the mean of all weights with ours.
  * A step ends when the new weights are in every array that is to receive them. The weights themselves and R mirrors are
    such arrays; whoever keeps no other copy of the weights than these need not write one.
  * Gradients are not changed. Making them, and moving them between address spaces, is no part of a step.
  * The bytes of a case are the least that a step must move: each gradient, weight and state read once, each weight, state
    and mirror written once. A contender that reads or writes more has that in its time only.
  * axpy and the copy kernel do no step but move as many bytes as the case: they show what memory allows.
  * Contenders whose arrays do not fit into memory together take turns in smaller groups, ours in each.

Exit status: 0, also where contenders are missing or do not support a case; 1 if one failed or computed something else; 2
for wrong arguments.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import cases
import expected
import report
from cases import Case

ROOT = Path(__file__).resolve().parents[2]
BASELINES = ROOT / "benchmarks" / "baselines"
INSTALLED = ROOT / "build" / "baselines"
OURS = "ours"
CHECKED_STEPS = 3
TURN_SECONDS = 0.05
PAUSE_SECONDS = 0.01  # until the threads of the last one sleep
REPLY_SECONDS = 300
RESTART_BYTES = 1 << 30  # who held more starts anew: allocators do not give everything back


class Failure(Exception):
    """The contender answered with an error, or not at all."""


class Unsupported(Exception):
    """The contender cannot do this case."""


@dataclass
class Contender:
    name: str
    command: list[str]  # the number of threads is put behind it, then `behind`
    version: str = ""
    missing: str = ""  # why it is not installed
    memory_factor: float = 1.1
    behind: list[str] = field(default_factory=list)


class Process:
    """A contender that listens."""

    def __init__(self, contender: Contender, threads: int) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        command = [*contender.command, str(threads), *contender.behind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT
        )
        self._text = b""
        try:
            self._expect(self._read(), "ready")
        except Failure:
            self.close()
            raise

    def ask(self, line: str, first_word: str) -> str:
        """What stands behind the first word of the answer."""
        stdin = self._stream(self._process.stdin)
        try:
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        except OSError as error:
            raise Failure(f"it ended with status {self._process.wait()}") from error
        return self._expect(self._read(), first_word)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream

    @staticmethod
    def _expect(answer: str, first_word: str) -> str:
        word, _, rest = answer.partition(" ")
        if word == "unsupported":
            raise Unsupported(rest)
        if word != first_word:
            raise Failure(rest if word == "error" else f"unexpected answer: {answer}")
        return rest

    def _read(self) -> str:
        descriptor = self._stream(self._process.stdout).fileno()
        deadline = time.monotonic() + REPLY_SECONDS
        while b"\n" not in self._text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise Failure(f"no answer within {REPLY_SECONDS} s")
            piece = os.read(descriptor, 65536)
            if not piece:
                raise Failure(f"it ended with status {self._process.wait()}")
            self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        return line.decode(errors="replace")


@dataclass
class Entrant:
    """A contender in one case."""

    contender: Contender
    process: Process
    bytes: float  # of one of its steps
    steps: int = 1  # per turn
    mean: float | None = None
    deviation: float | None = None
    turns: list[float] = field(default_factory=list)  # seconds per step

    def turn(self, case: Case) -> None:
        seconds = float(self.process.ask(f"run {self.steps}", "seconds")) / self.steps
        self.turns.append(seconds * case.moved_bytes / self.bytes)


def python_contenders(gpu: bool, peers: bool) -> Iterator[Contender]:
    def baseline(name: str, folder: str, module: str, *arguments: str, factor: float = 1.2) -> Contender:
        installed = INSTALLED / folder
        python = installed / "venv" / "bin" / "python"
        version, missing = installed / "version.txt", installed / "missing.txt"
        script = BASELINES / {"torch": "pytorch", "fbgemm_gpu": "fbgemm"}.get(module, module) / "contender.py"
        behind = ["cuda"] if gpu else []
        contender = Contender(name, [str(python), str(script), *arguments], memory_factor=factor, behind=behind)
        if version.exists():
            contender.version = version.read_text().strip()
        elif missing.exists():
            contender.missing = missing.read_text().strip()
        elif importlib.util.find_spec(module) is not None:  # where nothing can be installed, what is there counts
            contender.command[0] = sys.executable
            contender.version = f"{module} {importlib.metadata.version(module)}"
        else:
            contender.missing = "benchmarks/baselines/install.sh was not run"
        return contender

    yield baseline("PyTorch (fused)", "pytorch", "torch", "fused")
    yield baseline("PyTorch (foreach)", "pytorch", "torch", "foreach")
    if gpu:
        return
    yield baseline("PyTorch (loop)", "pytorch", "torch", "loop")
    if peers:
        yield baseline("DeepSpeed CPUAdam", "deepspeed", "deepspeed")
        yield baseline("torchao AdamW8bit", "torchao", "torchao", factor=2)
        yield baseline("bitsandbytes AdamW8bit", "bitsandbytes", "bitsandbytes", factor=2)
        yield baseline("FBGEMM", "fbgemm", "fbgemm_gpu")
        return
    yield baseline("PyTorch 1.13 (foreach)", "pytorch_1_13", "torch", "foreach")
    yield baseline("PyTorch 1.13 (loop)", "pytorch_1_13", "torch", "loop")
    yield baseline("MXNet KVStore", "mxnet", "mxnet", factor=1.3)
    yield baseline("JAX, optax", "jax", "jax", factor=1.6)


def own_contenders(program: Path) -> list[Contender]:
    names = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [Contender(name, [str(program), name], version=library_version(name)) for name in names]


def library_version(name: str) -> str:
    versions = INSTALLED / "debian" / "version.txt"
    lines = versions.read_text().splitlines() if versions.exists() else []
    return next((line for line in lines if name.split()[0].rstrip(",") == line.split()[0]), "")


def models_of(program: Path) -> dict[str, tuple[int, ...]]:
    lines = subprocess.run([program, "--models"], check=True, capture_output=True, text=True).stdout.splitlines()
    return {words[0]: tuple(map(int, words[1:])) for words in map(str.split, lines)}


class Comparison:
    def __init__(self, arguments: argparse.Namespace, contenders: Sequence[Contender]) -> None:
        self.contenders = contenders
        self.turns: int = arguments.turns
        self.threads: int = arguments.threads
        self.memory: float = arguments.memory * 2**30
        self.quiet: bool = arguments.quiet
        self.failures: list[str] = []
        self._processes: dict[str, Process] = {}
        self._process_threads = arguments.threads

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        for process in self._processes.values():
            process.close()
        self._processes.clear()

    def run(self, case: Case) -> Iterator[dict[str, Any]]:
        """The rows of one case."""
        threads = case.threads or self.threads
        if threads != self._process_threads:  # libraries take their threads when they start
            self.close()
            self._process_threads = threads
        waiting: list[Contender] = []
        for contender in self.contenders:
            if not case.who.search(contender.name):
                continue
            if contender.missing:
                yield self._row(case, contender, "not installed", contender.missing)
            else:
                waiting.append(contender)
        ours = waiting.pop(0)
        leader = self._enter(case, ours, None)
        if not isinstance(leader, Entrant):
            yield leader
            return
        group = 0
        while waiting or group == 0:
            left = self.memory - case.held_bytes * ours.memory_factor
            entrants, leader.turns = [leader], []
            while waiting and (len(entrants) == 1 or left >= case.held_bytes * waiting[0].memory_factor):
                contender = waiting.pop(0)
                entrant = self._enter(case, contender, leader)
                if isinstance(entrant, Entrant):
                    entrants.append(entrant)
                    left -= case.held_bytes * contender.memory_factor
                else:
                    yield entrant
            yield from self._contest(case, entrants, group)
            group += 1
        self._clear(case, leader)

    def _enter(self, case: Case, contender: Contender, leader: Entrant | None) -> Entrant | dict[str, Any]:
        """Prepares a contender; a row that says why, if it does not take part."""
        self.say(f"  {contender.name}: preparing")
        try:
            if contender.name not in self._processes:
                self._processes[contender.name] = Process(contender, self._process_threads)
            process = self._processes[contender.name]
            answer = process.ask(f"setup {case.words()}", "ok")
            entrant = Entrant(contender, process, float(answer.partition("bytes=")[2] or case.moved_bytes))
            process.ask(f"run {CHECKED_STEPS}", "seconds")
            self._check(case, entrant, leader)
            once = min(float(process.ask("run 1", "seconds")) for _ in range(2))
            entrant.steps = max(1, min(2000, round(TURN_SECONDS / max(once, 1e-9))))
            return entrant
        except Unsupported as reason:
            return self._row(case, contender, "unsupported", str(reason))
        except Failure as reason:
            return self._failed(case, contender, str(reason))

    def _check(self, case: Case, entrant: Entrant, leader: Entrant | None) -> None:
        values = [float(word) for word in entrant.process.ask("check", "values").split()]
        if not values:
            return
        entrant.mean = values[0]
        wanted = expected.samples(case, CHECKED_STEPS)
        if len(wanted) != len(values) - 1:
            raise Failure(f"{len(values) - 1} sampled weights instead of {len(wanted)}")
        entrant.deviation = max(abs(x - y) for x, y in zip(values[1:], wanted))
        if leader is not None and leader.mean is not None:
            entrant.deviation = max(entrant.deviation, abs(entrant.mean - leader.mean))
        if not entrant.deviation <= expected.tolerance(case, CHECKED_STEPS):
            raise Failure(f"weights are off by {entrant.deviation:.1e}")

    def _contest(self, case: Case, entrants: list[Entrant], group: int) -> Iterator[dict[str, Any]]:
        leader, lost = entrants[0], []
        for turn in range(self.turns):
            self.say(f"  turn {turn + 1} of {self.turns}, {len(entrants)} contenders")
            for i in range(len(entrants)):
                entrant = entrants[(turn + i) % len(entrants)]
                if entrant in lost:
                    continue
                time.sleep(PAUSE_SECONDS)
                try:
                    entrant.turn(case)
                except Failure as reason:
                    lost.append(entrant)
                    yield self._failed(case, entrant.contender, str(reason))
        for entrant in entrants:
            if entrant is not leader and entrant not in lost:
                self._clear(case, entrant)
        if leader in lost:
            return
        ours = statistics.median(leader.turns), min(leader.turns)
        for entrant in entrants:
            if entrant in lost or (entrant is leader and group > 0):
                continue
            median, best = statistics.median(entrant.turns), min(entrant.turns)
            row = self._row(case, entrant.contender, "ok", "")
            row |= {"seconds": median, "best_seconds": best, "ratio": median / ours[0], "best_ratio": best / ours[1]}
            row |= {"ours_seconds": ours[0], "turns": entrant.turns, "steps_per_turn": entrant.steps, "group_number": group}
            yield row | {"deviation": entrant.deviation}

    def _clear(self, case: Case, entrant: Entrant) -> None:
        if case.held_bytes > RESTART_BYTES:
            return self._end(entrant.contender)
        try:
            entrant.process.ask("clear", "ok")
        except Failure:
            self._end(entrant.contender)

    def _end(self, contender: Contender) -> None:
        process = self._processes.pop(contender.name, None)
        if process is not None:
            process.close()

    def _failed(self, case: Case, contender: Contender, reason: str) -> dict[str, Any]:
        self._end(contender)
        self.failures.append(f"{case.key}: {contender.name}: {reason}")
        return self._row(case, contender, "failed", reason)

    def _row(self, case: Case, contender: Contender, status: str, reason: str) -> dict[str, Any]:
        return {
            "group": case.group, "case": case.name, "contender": contender.name, "status": status, "reason": reason,
            "rule": case.rule, "K": case.gradients, "R": case.mirrors, "element": case.element,
            "elements": case.elements, "tensors": len(case.sizes), "bytes": case.moved_bytes, "x": case.x,
            "threads": self._process_threads, "version": contender.version,
        }


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    changed = " with changes" if output_of("git", "status", "--porcelain", "include", "benchmarks/compare") else ""
    about = {
        "date": datetime.date.today().isoformat(),
        "processor": cpu.group(1) if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "turns": arguments.turns,
        "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "compiler": output_of("c++", "--version").partition("\n")[0] + ", -O2 -march=native",
        "commit": output_of("git", "rev-parse", "--short", "HEAD") + changed,
        "sizes divided by": arguments.divisor,
    }
    if arguments.gpu:
        about["GPU, driver"] = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
        about["nvcc"] = output_of("nvcc", "--version").rpartition("\n")[2]
    return about


def available_gib() -> float:
    found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found.group(1)) / 2**20 if found else 8.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares this library with its baselines, all in one run.")
    parser.add_argument("--program", type=Path, required=True, help="pushpull.bench.compare, or .cuda with --gpu")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder (benchmarks/results)")
    parser.add_argument("--cases", type=re.compile, default=re.compile(""), help="regular expression on a/sgd, b/..., ...")
    parser.add_argument("--contenders", type=re.compile, default=re.compile(""), help="regular expression; ours always runs")
    parser.add_argument("--turns", type=int, default=7, help="turns of each contender (7)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of each contender (2)")
    parser.add_argument("--memory", type=float, help="GiB for all contenders together (2/3 of what is free)")
    parser.add_argument("--divisor", type=int, default=1, help="makes cases smaller by this factor, for trying it out")
    parser.add_argument("--append", action="store_true", help="keep the rows of cases that are not run")
    parser.add_argument("--gpu", action="store_true", help="the cases for GPUs, results in compare_gpu.*")
    parser.add_argument("--peers", action="store_true", help="optimizers of other libraries, results in compare_peers.*")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    arguments = parser.parse_args()
    if arguments.gpu and arguments.peers:
        parser.error("--gpu and --peers exclude each other")
    if min(arguments.turns, arguments.threads, arguments.divisor) < 1:
        parser.error("--turns, --threads and --divisor are at least 1")
    if not arguments.program.exists():
        parser.error(f"{arguments.program} does not exist: benchmarks/run.sh compare builds it")
    if arguments.memory is None:
        arguments.memory = available_gib() * 2 / 3
    return arguments


def main() -> int:
    arguments = parse_arguments()
    own = own_contenders(arguments.program)
    if not own:
        print("skipped: no GPU", file=sys.stderr)
        return 0
    models = models_of(arguments.program)
    all_cases = (cases.gpu_cases(models, arguments.divisor) if arguments.gpu
                 else cases.peer_cases(models, arguments.divisor) if arguments.peers
                 else cases.cpu_cases(models, arguments.threads, arguments.divisor))
    chosen = [case for case in all_cases if arguments.cases.search(case.key)]
    if arguments.list or not chosen:
        for case in chosen:
            print(f"{case.key}: {case.elements} elements, {case.moved_bytes * 1e-6:.1f} MB per step")
        return 0 if chosen else 2

    contenders = [c for c in [*own, *python_contenders(arguments.gpu, arguments.peers)]
                  if c.name == OURS or arguments.contenders.search(c.name)]
    comparison = Comparison(arguments, contenders)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"compare{'_gpu' if arguments.gpu else '_peers' if arguments.peers else ''}.jsonl"
    kept: list[dict[str, Any]] = []
    if arguments.append and path.exists():
        keys = {case.key for case in chosen}
        kept = [row for row in report.read(path)[1] if f"{row['group']}/{row['case']}" not in keys]
    start = time.monotonic()
    unfinished = path.with_suffix(".jsonl.unfinished")  # the rows so far of a comparison that ends before its time
    try:
        with unfinished.open("w") as file:
            for line in [machine(arguments), *kept]:
                print(json.dumps(line), file=file)
            for number, case in enumerate(chosen, start=1):
                comparison.say(f"[{number}/{len(chosen)}] {case.key}, {case.moved_bytes * 1e-6:.1f} MB per step, "
                               f"{time.monotonic() - start:.0f} s so far")
                order = {contender.name: i for i, contender in enumerate(contenders)}
                for row in sorted(comparison.run(case), key=lambda row: order[row["contender"]]):
                    print(json.dumps(row), file=file, flush=True)
    finally:
        comparison.close()
    unfinished.replace(path)
    report.write(path)
    comparison.say(f"{time.monotonic() - start:.0f} s; results in {path.with_suffix('')}.*")
    for failure in comparison.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    sys.exit(main())
