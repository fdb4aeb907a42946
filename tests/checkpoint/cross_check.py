#!/usr/bin/env python3
"""Exchanges files with the PyPI package `safetensors`: cross_check.py <the program of cross_check.cpp>

Ends with 77, which ctest reports as skipped, where the package or numpy is missing.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy
    import safetensors
    import safetensors.numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

NUMPY_TYPES = {"F32": "f4", "F64": "f8", "F16": "f2", "I32": "i4", "I64": "i8", "U8": "u1"}
METADATA = {"step": "12", "größe": '"€"\n'}


def six(dtype):
    """What cross_check.cpp writes: 0, 1.5, 3, ..., less what the type has not; of bfloat16 the bits."""
    values = 1.5 * numpy.arange(6, dtype="f4")
    return (values.view("u4") >> 16).astype("u2") if dtype == "BF16" else values.astype(NUMPY_TYPES[dtype])


def read(program, path):
    """What the library finds in a file."""
    return json.loads(subprocess.run([program, "read", str(path)], check=True, capture_output=True).stdout)


def check_ours(program, path):
    """Python reads what the library wrote."""
    subprocess.run([program, "write", str(path)], check=True)
    found = dict(safetensors.deserialize(path.read_bytes()))
    for dtype in [*NUMPY_TYPES, "BF16"]:
        values = six(dtype)
        for name, shape, part in [("matrix", [2, 3], values), ("scalar", [], values[2]), ("empty", [0, 5], values[:0])]:
            tensor = found.pop(f"{dtype}/{name}")
            assert tensor["dtype"] == dtype, (name, tensor)
            assert tensor["shape"] == shape, (name, tensor)
            assert bytes(tensor["data"]) == part.tobytes(), (dtype, name, tensor)
    assert not found, found
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == METADATA, file.metadata()
        assert numpy.array_equal(file.get_tensor("I64/matrix"), six("I64").reshape(2, 3))
    # Of bfloat16 numpy has nothing to write, but the package has just confirmed the bits of this one.
    tensor = read(program, path)["tensors"]["BF16/matrix"]
    assert tensor == {"dtype": "BF16", "shape": [2, 3], "values": [0, 1.5, 3, 4.5, 6, 7.5]}, tensor


def check_states(program, path):
    """Python reads a store's optimizer states."""
    subprocess.run([program, "states", str(path)], check=True)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = {"format": "pushpull.optimizer_states", "version": "1", "rule": "momentum", "rule.states": "momentum",
                    "fc1.weight/steps": "2"}
        assert file.metadata() == metadata, file.metadata()
        assert list(file.keys()) == ["fc1.weight/momentum_buffer"], file.keys()
        momentum = file.get_tensor("fc1.weight/momentum_buffer")
    assert numpy.array_equal(momentum, numpy.full((3, 5), 1.9, dtype="f4")), momentum


def check_theirs(program, path):
    """The library reads what Python wrote."""
    random = numpy.random.default_rng(7)
    tensors = {}
    for dtype, numpy_type in NUMPY_TYPES.items():
        values = random.integers(0, 250, size=(3, 5)).astype(numpy_type)
        tensors[f"{dtype}/matrix"] = values
        tensors[f"{dtype}/scalar"] = numpy.array(values[1, 2])
        tensors[f"{dtype}/empty"] = values[:0]
    tensors["bool"] = numpy.array([True, False])
    safetensors.numpy.save_file(tensors, path, metadata=METADATA)
    found = read(program, path)
    assert found["metadata"] == METADATA, found["metadata"]
    assert set(found["tensors"]) == set(tensors), set(found["tensors"])
    assert found["tensors"].pop("bool") == {"dtype": "BOOL", "shape": [2]}
    for name, tensor in found["tensors"].items():
        assert tensor["dtype"] == name.split("/")[0], (name, tensor)
        assert tensor["shape"] == list(tensors[name].shape), (name, tensor)
        assert tensor["values"] == [float(x) for x in tensors[name].flat], (name, tensor)


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_ours(sys.argv[1], pathlib.Path(folder) / "ours.safetensors")
        check_states(sys.argv[1], pathlib.Path(folder) / "states.safetensors")
        check_theirs(sys.argv[1], pathlib.Path(folder) / "theirs.safetensors")
    print(f"safetensors {safetensors.__version__}: files agree both ways")


if __name__ == "__main__":
    main()
