#!/usr/bin/env python3
"""optax under jax.jit as a contender, weights and states donated: contender.py THREADS"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# XLA's CPU client takes as many threads as it may run on processors.
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]))
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import optax

import protocol
from protocol import Task, Unsupported

MOST_TENSORS = 2000
ELEMENTS = {"float": jnp.float32, "bfloat16": jnp.bfloat16}


def transform_of(rule: str) -> optax.GradientTransformation:
    moments = {"b1": protocol.ADAM["beta1"], "b2": protocol.ADAM["beta2"], "eps": protocol.ADAM["epsilon"]}
    rate = protocol.ADAM["learning_rate"]
    if rule == "sgd":
        return optax.sgd(protocol.SGD["learning_rate"])
    if rule == "momentum":
        return optax.sgd(protocol.MOMENTUM["learning_rate"], momentum=protocol.MOMENTUM["momentum"])
    if rule == "adam":
        return optax.adam(rate, **moments)
    if rule == "adamw":
        return optax.adamw(rate, weight_decay=protocol.WEIGHT_DECAY, **moments)
    raise Unsupported(f"no rule {rule}")


class Step:
    """One jitted function: sums, optax, and each mirror as an output with memory of its own."""

    def __init__(self, task: Task) -> None:
        if len(task.sizes) > MOST_TENSORS:
            raise Unsupported(f"compiling a step over more than {MOST_TENSORS:,} tensors takes minutes")
        element = ELEMENTS[task.element]
        transform = transform_of(task.rule)
        self.weights = [jnp.array(protocol.weight(n)) for n in task.sizes]
        self.gradients = [
            [jnp.array(protocol.gradient(k, n)).astype(element) for n in task.sizes] for k in range(task.gradients)
        ]
        self.mirrors = [[jnp.zeros(n, element) for n in task.sizes] for _ in range(task.mirrors)]
        self.state = jax.jit(transform.init)(self.weights)

        def step(weights, state, mirrors, gradients):
            total = [sum(source[j].astype(jnp.float32) for source in gradients) for j in range(len(weights))]
            change, state = transform.update(total, state, weights)
            weights = optax.apply_updates(weights, change)
            # In the donated memory of the old mirrors.
            mirrors = [[m.at[:].set(w.astype(element)) for m, w in zip(mirror, weights)] for mirror in mirrors]
            return weights, state, mirrors

        self.run = jax.jit(step, donate_argnums=(0, 1, 2))
        self.step()
        pointers = {m.unsafe_buffer_pointer() for mirror in [*self.mirrors, self.weights] for m in mirror}
        if len(pointers) != (task.mirrors + 1) * len(task.sizes):
            raise Unsupported("the compiler made one array of several mirrors")
        self.weights = [jnp.array(protocol.weight(n)) for n in task.sizes]
        self.state = jax.jit(transform.init)(self.weights)

    def step(self) -> None:
        self.weights, self.state, self.mirrors = self.run(self.weights, self.state, self.mirrors, self.gradients)
        jax.block_until_ready((self.weights, self.mirrors))

    def finish(self) -> None:
        jax.block_until_ready(self.weights)

    def result(self, tensor: int) -> np.ndarray:
        last = self.mirrors[-1] if self.mirrors else self.weights
        return np.asarray(last[tensor].astype(jnp.float32))


class PushRows:
    """A scatter; optax has no lazy rules, so only plain descent."""

    def __init__(self, task: Task) -> None:
        if task.rule != "sgd":
            raise Unsupported(f"optax has no lazy {task.rule}")
        shape = (task.rows, task.row_length)
        self.table = jnp.array(protocol.weight(task.rows * task.row_length).reshape(shape))
        self.values = jnp.array(protocol.gradient(0, task.given_rows * task.row_length).reshape(-1, task.row_length))
        self.ids = jnp.array(protocol.row_ids(task).astype(np.int32))
        rate = protocol.SGD["learning_rate"]
        self.run = jax.jit(lambda table, ids, values: table.at[ids].add(-rate * values), donate_argnums=0)

    def step(self) -> None:
        self.table = self.run(self.table, self.ids, self.values)
        self.finish()

    def finish(self) -> None:
        jax.block_until_ready(self.table)

    def result(self, tensor: int) -> np.ndarray:
        return np.asarray(self.table)


class PullRows:
    """A gather by ascending ids."""

    def __init__(self, task: Task) -> None:
        shape = (task.rows, task.row_length)
        self.table = jnp.array(protocol.weight(task.rows * task.row_length).reshape(shape))
        self.ids = jnp.array(protocol.row_ids(task).astype(np.int32))
        self.output = jnp.zeros((task.given_rows, task.row_length))
        self.run = jax.jit(lambda out, table, ids: out.at[:].set(table[jnp.sort(ids)]), donate_argnums=0)

    def step(self) -> None:
        self.output = self.run(self.output, self.table, self.ids)
        self.finish()

    def finish(self) -> None:
        jax.block_until_ready(self.output)

    def result(self, tensor: int) -> np.ndarray:
        return np.asarray(self.output)


def make(task: Task) -> protocol.Contender:
    if task.operation == "step":
        return Step(task)
    if task.operation == "push_rows":
        return PushRows(task)
    if task.operation == "pull_rows":
        return PullRows(task)
    raise Unsupported(f"no {task.operation}")


if __name__ == "__main__":
    protocol.serve(make)
