#!/usr/bin/env python3
"""FBGEMM's table of embeddings on CPUs, with row-wise AdaGrad in its backward pass, as a contender: contender.py THREADS"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen

import protocol
from protocol import Task, Unsupported


class PushRows:
    """The backward pass of bags of one row each: it applies the rule to these rows. The forward pass is no part of a step."""

    def __init__(self, task: Task) -> None:
        if task.rule != "row_adagrad":
            raise Unsupported(f"only row-wise AdaGrad is asked for, no {task.rule}")
        self.table = SplitTableBatchedEmbeddingBagsCodegen(
            [(task.rows, task.row_length, EmbeddingLocation.HOST, ComputeDevice.CPU)],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=protocol.ROW_ADAGRAD["learning_rate"],
            eps=protocol.ROW_ADAGRAD["epsilon"],
            pooling_mode=PoolingMode.SUM,
        )
        weights = protocol.weight(task.rows * task.row_length).reshape(task.rows, task.row_length)
        self._weights().copy_(torch.from_numpy(weights))
        values = protocol.gradient(0, task.given_rows * task.row_length).reshape(-1, task.row_length)
        self.values = torch.from_numpy(values)
        ids = torch.from_numpy(protocol.row_ids(task))
        self.output = self.table(ids, torch.arange(task.given_rows + 1))

    def _weights(self) -> torch.Tensor:
        return self.table.split_embedding_weights()[0]

    def step(self) -> None:
        self.output.backward(self.values, retain_graph=True)

    def finish(self) -> None:
        pass

    def result(self, tensor: int) -> np.ndarray:
        return self._weights().detach().numpy()


def make(task: Task) -> protocol.Contender:
    if task.operation != "push_rows":
        raise Unsupported(f"no {task.operation}")
    return PushRows(task)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    protocol.serve(make)
