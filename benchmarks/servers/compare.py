#!/usr/bin/env python3
"""A push and a pull with one server beside MXNet's dist_async: compare.py --program P --mxnet-python P

pushpull.bench.servers and a job of MXNet (a scheduler, a server, a worker: three processes) take turns on this machine. The rule is
SGD with momentum on the server. The best turn of each counts.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
from pathlib import Path

OURS = re.compile(r"with one server: ([\d.]+) ms")
THEIRS = re.compile(r"dist_async: ([\d.]+) ms")


def run_ours(program: str, mib: int, turns: int) -> str:
    return subprocess.run([program, str(mib), str(turns)], check=True, stdout=subprocess.PIPE, text=True).stdout


def run_mxnet(python: str, mib: int, turns: int) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(port), "DMLC_NODE_HOST": "127.0.0.1",
           "DMLC_INTERFACE": "lo", "DMLC_NUM_SERVER": "1", "DMLC_NUM_WORKER": "1"}
    command = [python, str(Path(__file__).with_name("mxnet_worker.py")), str(mib), str(turns)]
    processes = {role: subprocess.Popen(command, env={**os.environ, **job, "DMLC_ROLE": role}, text=True,
                                        stdout=subprocess.PIPE if role == "worker" else None)
                 for role in ("scheduler", "server", "worker")}
    try:
        output, _ = processes["worker"].communicate(timeout=300)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    if processes["worker"].returncode:
        raise SystemExit("compare.py: the worker of MXNet failed")
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="pushpull.bench.servers")
    parser.add_argument("--mxnet-python", required=True, help="an interpreter that imports mxnet")
    parser.add_argument("--mib", type=int, default=16, help="of the key")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=20, help="in every round")
    options = parser.parse_args()

    ours = theirs = float("inf")
    for _ in range(options.rounds):
        for text in (run_ours(options.program, options.mib, options.turns),
                     run_mxnet(options.mxnet_python, options.mib, options.turns)):
            print(text, end="", flush=True)
            if found := OURS.search(text):
                ours = min(ours, float(found[1]))
            if found := THEIRS.search(text):
                theirs = min(theirs, float(found[1]))
    print(f"{options.mib} MiB: pushpull {ours:.1f} ms, MXNet's dist_async {theirs:.1f} ms: {theirs / ours:.2f} times as fast")


if __name__ == "__main__":
    main()
