#!/usr/bin/env python3
"""MXNet's part of the comparison with servers: one process of a job of dist_async, whose role DMLC_ROLE names.

mxnet_worker.py MiB TURNS. A scheduler and a server never return from the import; the worker prints its best turn.
"""

import os
import sys
import time

import mxnet as mx

size = int(sys.argv[1]) * (1 << 18)
store = mx.kv.create("dist_async")
store.init("w", mx.nd.ones(size))
store.set_optimizer(mx.optimizer.SGD(learning_rate=0.01, momentum=0.9))
gradient, weights = mx.nd.full(size, 0.001), mx.nd.ones(size)
mx.nd.waitall()
best = float("inf")
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    store.push("w", gradient)
    store.pull("w", out=weights)
    weights.wait_to_read()
    best = min(best, time.perf_counter() - begin)
if not 0 < weights[0].asscalar() < 1:
    sys.exit("mxnet_worker.py: the server applied no update")
print(f"MXNet's dist_async: {best * 1e3:.1f} ms", flush=True)
os._exit(0)  # its exit waits for a scheduler that the driver ends
