#!/usr/bin/env python3
"""Writes mxnet_params.hpp, with files that the PyPI package mxnet 1.9.1 wrote: record_mxnet_params.py > mxnet_params.hpp"""
import os
import tempfile

import numpy

numpy.bool = bool  # newer versions of numpy have none
import mxnet  # noqa: E402

TYPES = ["float32", "float64", "float16", "uint8", "int32", "int8", "int64"]


def literal(name, save):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.params")
        save(path)
        with open(path, "rb") as file:
            text = file.read().hex()
    lines = [f'    "{text[i:i + 108]}"' for i in range(0, len(text), 108)]
    print(f"inline constexpr char const* {name} =\n" + "\n".join(lines) + ";\n")


def main():
    named = {f"arg:{name}": mxnet.nd.array(numpy.arange(6).reshape(2, 3) + 1, dtype=name) for name in TYPES}
    named["aux:one"] = mxnet.nd.array([7.5])
    named["arg:rows"] = mxnet.nd.sparse.row_sparse_array(([[1, 2], [3, 4]], [1, 3]), shape=(4, 2))
    named["arg:no_rows"] = mxnet.nd.sparse.zeros("row_sparse", (3, 2))
    listed = [mxnet.nd.array([1, 2, 3]), mxnet.nd.array([[4]])]
    compressed = {"c": mxnet.nd.array([[0, 1], [2, 0]]).tostype("csr")}
    print("/// @file\n/// Files that MXNet " + mxnet.__version__ + " wrote, in hexadecimal digits: see record_mxnet_params.py.")
    print("#pragma once\n\nnamespace pushpull::test {\n")
    literal("named_arrays", lambda path: mxnet.nd.save(path, named))
    literal("unnamed_arrays", lambda path: mxnet.nd.save(path, listed))
    literal("compressed_rows", lambda path: mxnet.nd.save(path, compressed))
    mxnet.npx.set_np()
    arrays = {"scalar": mxnet.np.array(2.5), "empty": mxnet.np.zeros((0, 3)),
              "matrix": mxnet.np.array([[1, 2]], dtype="int32"), "flags": mxnet.np.array([True, False], dtype="bool")}
    literal("numpy_arrays", lambda path: mxnet.npx.save(path, arrays))
    print("}  // namespace pushpull::test")


if __name__ == "__main__":
    main()
