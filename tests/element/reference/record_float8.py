#!/usr/bin/env python3
"""Records what ml_dtypes takes every code of the two 8-bit floating-point types for, for this library's tests to
compare with.

Usage: record_float8.py [OUTPUT]    (OUTPUT: float8_values.hpp beside this script unless given)
"""

import sys
from pathlib import Path

import ml_dtypes
import numpy

HEADER = """\
/// @file
/// What ml_dtypes takes every code of the 8-bit floating-point types for.
///
/// Written by record_float8.py, which see; do not edit. Recorded with ml_dtypes @VERSION@.
#pragma once

#include <array>
#include <limits>

namespace float8_reference {

inline constexpr float nan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float inf = std::numeric_limits<float>::infinity();

// clang-format off
@ARRAYS@
// clang-format on

}  // namespace float8_reference
"""


def literal(x):
    if not numpy.isfinite(x):
        return "nan" if numpy.isnan(x) else ("-inf" if x < 0 else "inf")
    text = f"{abs(x):.12g}"
    return ("-" if numpy.signbit(x) else "") + text + ("" if "." in text or "e" in text else ".0") + "F"


def array(name, dtype):
    values = numpy.arange(256, dtype=numpy.uint8).view(dtype).astype(numpy.float32)
    for value in values[numpy.isfinite(values)]:
        assert numpy.float32(literal(value)[:-1]) == value
    lines = [f"inline constexpr std::array<float, 256> {name}{{"]
    for row in values.reshape(-1, 8):
        lines.append("    " + ", ".join(map(literal, row)) + ",")
    return "\n".join([*lines, "};"])


def main():
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("float8_values.hpp")
    arrays = (array("e4m3fn", ml_dtypes.float8_e4m3fn), array("e5m2", ml_dtypes.float8_e5m2))
    output.write_text(HEADER.replace("@VERSION@", ml_dtypes.__version__).replace("@ARRAYS@", "\n\n".join(arrays)))


if __name__ == "__main__":
    main()
