"""examples/mxnet_params/to_safetensors.py on files of MXNet's layout: mxnet_params.py <converter> <the program of cross_check.cpp>."""

import json
import os
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(sys.argv[1]))
sys.dont_write_bytecode = True
import to_safetensors  # noqa: E402

DENSE = bytes.fromhex(
    "1201000000000000 0000000000000000 0100000000000000 c9fa93f9 00000000 01000000 0200000000000000 01000000 00000000"
    "00000000 0000803f 00000040 0100000000000000 0100000000000000 77".replace(" ", ""))
ROW_SPARSE = bytes.fromhex(
    "1201000000000000 0000000000000000 0100000000000000 c9fa93f9 01000000 02000000 0200000000000000 0200000000000000"
    "02000000 0400000000000000 0200000000000000 01000000 00000000 00000000 06000000 01000000 0200000000000000 0000803f"
    "00000040 00004040 00008040 0100000000000000 0300000000000000 0100000000000000 0100000000000000 65".replace(" ", ""))


def listed(record, name=b"arg:w"):
    return struct.pack("<QQQ", 0x112, 0, 1) + record + struct.pack("<QQ", 1, len(name)) + name


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def refused(data):
    try:
        to_safetensors.read_params(data)
    except to_safetensors.InvalidFile:
        return True
    return False


read = to_safetensors.read_params
assert read(DENSE) == {"w": ("F32", [2], floats(1, 2))}, read(DENSE)
assert read(ROW_SPARSE) == {"e": ("F32", [4, 2], floats(0, 0, 1, 2, 0, 0, 3, 4))}, read(ROW_SPARSE)
device = struct.pack("<ii", 2, 0)  # a GPU
for record in (struct.pack("<III", 2, 1, 2), struct.pack("<Iiqq", 0xF993FAC8, 2, 1, 2)):
    assert read(listed(record + device + struct.pack("<i", 0) + floats(5, 6))) == {"arg:w": ("F32", [1, 2], floats(5, 6))}
scalar = struct.pack("<Iii", 0xF993FACA, 0, 0) + device + struct.pack("<i", 12) + b"\x80\x3f"
assert read(listed(scalar)) == {"arg:w": ("BF16", [], b"\x80\x3f")}
for whole in (DENSE, ROW_SPARSE):
    assert all(refused(whole[:size]) for size in range(len(whole))), "a file that is cut short is read"
    assert refused(whole + b"\0"), "a file with more behind it is read"
assert refused(ROW_SPARSE.replace(struct.pack("<qq", 1, 3), struct.pack("<qq", 1, 4))), "a row outside is written"

with tempfile.TemporaryDirectory() as folder:
    params, converted = os.path.join(folder, "a.params"), os.path.join(folder, "a.safetensors")
    with open(params, "wb") as file:
        file.write(listed(struct.pack("<Iiiqq", 0xF993FAC9, 0, 2, 1, 2) + device + struct.pack("<i", 0) + floats(5, 6)))
    subprocess.run([sys.executable, sys.argv[1], params, converted, "--strip"], check=True)
    found = json.loads(subprocess.run([sys.argv[2], "read", converted], check=True, capture_output=True).stdout)
    assert found["tensors"] == {"w": {"dtype": "F32", "shape": [1, 2], "values": [5, 6]}}, found
    with open(params, "wb") as file:
        file.write(DENSE[:50])
    failed = subprocess.run([sys.executable, sys.argv[1], params, converted], capture_output=True, text=True)
    assert failed.returncode != 0 and "invalid file" in failed.stderr, failed.stderr
