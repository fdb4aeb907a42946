#!/usr/bin/env python3
"""A training step of BERT-base over two ranks beside PyTorch's: compare.py --program P --torch-python P

pushpull.bench.dist and ddp.py run one after the other, several times; the best time of each way to make a step counts.
Either takes up to 12 GB of memory.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
from pathlib import Path

RANKS = 2
TIME = re.compile(r"^(.+?) +([\d.]+) ms")
STORES = ("a store, ranks share memory", "a store, messages")


def run_ours(program: str, turns: int) -> list[str]:
    command = ["mpiexec", "-n", str(RANKS), program, "bert-base", str(turns)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def run_pytorch(python: str, turns: int) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
             "GLOO_SOCKET_IFNAME": "lo"}
    command = [python, str(Path(__file__).with_name("ddp.py")), str(turns)]
    environments = [{**os.environ, **world, "RANK": str(rank)} for rank in range(RANKS)]
    ranks = [subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True) for own in environments]
    outputs = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise SystemExit("compare.py: a rank of ddp.py failed")
    return outputs[0].splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="pushpull.bench.dist")
    parser.add_argument("--torch-python", required=True, help="an interpreter that imports torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5, help="in every round")
    options = parser.parse_args()

    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for lines in (run_ours(options.program, options.turns), run_pytorch(options.torch_python, options.turns)):
            for line in lines:
                print(line, flush=True)
                if found := TIME.match(line):
                    title, milliseconds = found[1], float(found[2])
                    best[title] = min(best.get(title, milliseconds), milliseconds)
    print(f"best of {options.rounds} rounds" + " " * 39 + "".join(f"  x {store}" for store in STORES))
    for title, milliseconds in best.items():
        ratios = "".join(f"{milliseconds / best[store]:{len(store) + 4}.2f}" for store in STORES)
        print(f"{title:46} {milliseconds:8.1f} ms{ratios}")


if __name__ == "__main__":
    main()
