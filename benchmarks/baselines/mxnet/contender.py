#!/usr/bin/env python3
"""MXNet's KVStore `local` as a contender: push, then pull. contender.py THREADS"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# Read when the library is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["MXNET_KVSTORE_REDUCTION_NTHREADS"] = sys.argv[1]

import mxnet as mx
import numpy as np

import protocol
from protocol import Task, Unsupported


def optimizer_of(rule: str) -> mx.optimizer.Optimizer:
    if rule == "sgd":
        return mx.optimizer.SGD(**protocol.SGD, wd=0.0)
    if rule == "momentum":
        return mx.optimizer.SGD(**protocol.MOMENTUM, wd=0.0)
    if rule == "adam":
        return mx.optimizer.Adam(**protocol.ADAM, wd=0.0)
    raise Unsupported(f"MXNet 1.9.1 has no {rule}")


class Step:
    """push of a list of keys; then, if there are outputs, pull of the same list."""

    def __init__(self, task: Task) -> None:
        if task.element != "float":
            raise Unsupported(f"MXNet 1.9.1 does not update from {task.element}")
        # Compression exists in "device" and "dist" only; over CPU contexts "device" computes on CPUs too.
        self.store = mx.kv.create("device" if task.operation == "two_bit" else "local")
        if task.operation == "two_bit":
            self.store.set_gradient_compression({"type": "2bit", "threshold": 0.5})
        self.store.set_optimizer(optimizer_of(task.rule))
        self.keys = list(range(len(task.sizes)))
        for key, n in zip(self.keys, task.sizes):
            self.store.init(key, mx.nd.array(protocol.weight(n), dtype="float32"))
        self.gradients = [
            [mx.nd.array(protocol.gradient(k, n), ctx=mx.cpu(k), dtype="float32") for k in range(task.gradients)]
            for n in task.sizes
        ]
        self.outputs = [[mx.nd.zeros(n, ctx=mx.cpu(r)) for r in range(task.mirrors)] for n in task.sizes]
        self.sizes, self.has_outputs = task.sizes, task.mirrors > 0
        mx.nd.waitall()

    def step(self) -> None:
        self.store.push(self.keys, self.gradients)
        if self.has_outputs:
            self.store.pull(self.keys, out=self.outputs)
        # A trainer waits for its weights before the next forward pass.
        mx.nd.waitall()

    def finish(self) -> None:
        mx.nd.waitall()

    def result(self, tensor: int) -> np.ndarray:
        if self.has_outputs:
            return self.outputs[tensor][-1].asnumpy()
        value = mx.nd.zeros(self.sizes[tensor])
        self.store.pull(tensor, out=value)
        return value.asnumpy()


class Rows:
    """A row-sparse table in the store: push of rows, or row_sparse_pull."""

    def __init__(self, task: Task) -> None:
        shape = (task.rows, task.row_length)
        self.pulls = task.operation == "pull_rows"
        self.store = mx.kv.create("local")
        if not self.pulls:
            self.store.set_optimizer(optimizer_of(task.rule))
        table = mx.nd.array(protocol.weight(task.rows * task.row_length).reshape(shape), dtype="float32")
        self.store.init("table", table.tostype("row_sparse"))
        ids = protocol.row_ids(task)
        # MXNet wants the ids of a gradient in ascending order.
        order = np.argsort(ids, kind="stable")
        values = protocol.gradient(0, task.given_rows * task.row_length).reshape(-1, task.row_length)[order]
        self.gradient = mx.nd.sparse.row_sparse_array((values, ids[order]), shape=shape, dtype="float32")
        self.ids = mx.nd.array(ids, dtype="int64")
        self.all_ids = mx.nd.arange(task.rows, dtype="int64")
        self.output = mx.nd.sparse.zeros("row_sparse", shape)
        mx.nd.waitall()

    def step(self) -> None:
        if self.pulls:
            self.store.row_sparse_pull("table", out=self.output, row_ids=self.ids)
        else:
            self.store.push("table", self.gradient)
        mx.nd.waitall()

    def finish(self) -> None:
        mx.nd.waitall()

    def result(self, tensor: int) -> np.ndarray:
        if not self.pulls:
            self.store.row_sparse_pull("table", out=self.output, row_ids=self.all_ids)
        return self.output.data.asnumpy()


def make(task: Task) -> protocol.Contender:
    return Step(task) if task.operation in ("step", "two_bit") else Rows(task)


if __name__ == "__main__":
    protocol.serve(make)
