#!/usr/bin/env bash
# Builds and runs all tests: tests/run.sh [ctest arguments], for instance tests/run.sh -R ^store/
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

need_build_packages catch2 librange-v3-dev libeigen3-dev zlib1g-dev libcli11-dev libdlpack-dev libopenmpi-dev openmpi-bin libzmq3-dev \
  cppzmq-dev libblas-dev liblapacke-dev
configure_examples
build examples-release
# Compiling is nearly all of the time: -Og takes two thirds of that of -O2.
configure tests -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-Og -DNDEBUG" \
  "-DCMAKE_CUDA_FLAGS_RELEASE=-O1 -DNDEBUG" -DPUSHPULL_BUILD_BENCHMARKS=OFF -DPUSHPULL_TEST_FILES_PER_UNIT=8 \
  "-DPUSHPULL_BUILT_EXAMPLES=$root/build/examples-release/examples"
gib_per_compiler=6 build tests
exec ctest --test-dir "$root/build/tests" --output-on-failure -j2 "$@"
