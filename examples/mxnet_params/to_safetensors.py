#!/usr/bin/env python3
"""Converts a file of arrays that MXNet wrote (.params) to a safetensors file, which pushpull's checkpoint::safetensors_file,
PyTorch, JAX and others read. Needs nothing but Python.

    to_safetensors.py model-0010.params model.safetensors [--strip]

Values keep their bits. Row-sparse arrays become dense: rows that are not stored are zero. --strip removes the prefixes arg: and
aux: of names. Arrays without names are called 0, 1, ...
"""

import argparse
import json
import math
import struct
import sys

# By MXNet's number of the element type: the name in safetensors files, and bytes.
TYPES = [("F32", 4), ("F64", 8), ("F16", 2), ("U8", 1), ("I32", 4), ("I8", 1), ("I64", 8), ("BOOL", 1), ("I16", 2), ("U16", 2),
         ("U32", 4), ("U64", 8), ("BF16", 2)]
LIST, V1, V2, V3 = 0x112, 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE, ROW_SPARSE = 0, 1
INT64 = 6


class InvalidFile(Exception):
    """The text says what was expected, and where."""


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        if count < 0 or count > len(self.data) - self.at:
            raise InvalidFile(f"invalid file: {count} bytes expected at {self.at}, {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, kind):
        return struct.unpack("<" + kind, self.bytes(struct.calcsize("<" + kind)))[0]

    def expect(self, holds, text):
        if not holds:
            raise InvalidFile(f"invalid file: {text} at {self.at}")

    def shape(self, kind="q"):
        rank = self.number("i")
        self.expect(0 <= rank <= 32, "a rank of 0 to 32 expected")
        return self.sizes(rank, kind)

    def sizes(self, rank, kind):
        sizes = [self.number(kind) for _ in range(rank)]
        self.expect(all(size >= 0 for size in sizes), "sizes of at least 0 expected")
        return sizes

    def type(self):
        number = self.number("i")
        self.expect(0 <= number < len(TYPES), "the number of an element type expected")
        return TYPES[number]

    def device(self):
        self.bytes(8)  # where the array was, which does not matter


def read_array(file):
    """The element type, the shape and the values of the next array."""
    magic = file.number("I")
    storage, stored = DENSE, None
    if magic in (V2, V3):
        storage = file.number("i")
        file.expect(storage in (DENSE, ROW_SPARSE), "a dense or row-sparse array expected (CSR has no place in the new file)")
        if storage == ROW_SPARSE:
            stored = file.shape()
    if magic == V3:
        rank = file.number("i")
        file.expect(rank <= 32, "a rank of up to 32 expected")
        if rank < 0:
            return "F32", [0], b""
        shape = file.sizes(rank, "q")
    elif magic in (V1, V2):
        shape = file.shape()
    else:  # before there were magic numbers, this was the rank
        file.expect(magic <= 32, "a magic number or a rank expected")
        shape = file.sizes(magic, "I")
    if not shape and magic != V3:
        return "F32", [0], b""
    file.device()
    name, width = file.type()
    if storage == DENSE:
        return name, shape, file.bytes(math.prod(shape) * width)
    file.expect(file.number("i") == INT64, "row numbers of 64 bits expected")
    rows = math.prod(file.shape())
    file.expect(stored == [rows] + shape[1:], "as many rows as row numbers expected")
    length = math.prod(shape[1:]) * width
    values = file.bytes(rows * length)
    numbers = struct.unpack(f"<{rows}q", file.bytes(8 * rows))
    dense = bytearray(shape[0] * length)
    for place, row in enumerate(numbers):
        file.expect(0 <= row < shape[0], f"row {row} of {shape[0]}")
        dense[row * length:(row + 1) * length] = values[place * length:(place + 1) * length]
    return name, shape, bytes(dense)


def read_params(data):
    """All arrays by name: {name: (element type, shape, values)}. Raises InvalidFile."""
    file = Reader(data)
    file.expect(file.number("Q") == LIST and file.number("Q") == 0, "a list of arrays expected")
    arrays = [read_array(file) for _ in range(file.number("Q"))]
    count = file.number("Q")
    file.expect(count in (0, len(arrays)), "no name or one for each array expected")
    try:
        names = [file.bytes(file.number("Q")).decode() for _ in range(count)] or [str(i) for i in range(len(arrays))]
    except UnicodeDecodeError as error:
        raise InvalidFile("invalid file: names in UTF-8 expected") from error
    file.expect(file.at == len(data), "the end expected")
    result = dict(zip(names, arrays))
    file.expect(len(result) == len(arrays), "different names expected")
    return result


def to_safetensors(arrays):
    """The bytes of the new file."""
    header, values = {}, []
    begin = 0
    for name, (element, shape, data) in arrays.items():
        header[name] = {"dtype": element, "shape": shape, "data_offsets": [begin, begin + len(data)]}
        begin += len(data)
        values.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *values])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("params")
    parser.add_argument("safetensors")
    parser.add_argument("--strip", action="store_true")
    arguments = parser.parse_args()
    with open(arguments.params, "rb") as file:
        data = file.read()
    try:
        arrays = read_params(data)
        if arguments.strip:
            stripped = {name.removeprefix("arg:").removeprefix("aux:"): array for name, array in arrays.items()}
            if len(stripped) < len(arrays):
                raise InvalidFile("two arrays have the same name without its prefix: convert without --strip")
            arrays = stripped
    except InvalidFile as error:
        sys.exit(f"{arguments.params}: {error}")
    except (MemoryError, OverflowError):
        sys.exit(f"{arguments.params}: a row-sparse array is too large as a dense one")
    with open(arguments.safetensors, "wb") as file:
        file.write(to_safetensors(arrays))


if __name__ == "__main__":
    main()
