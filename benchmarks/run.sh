#!/usr/bin/env bash
# Builds and runs the benchmarks: benchmarks/run.sh [filter], a regular expression on their names
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

need_build_packages libbenchmark-dev
configure benchmarks -DCMAKE_BUILD_TYPE=Release -DPUSHPULL_BUILD_TESTS=OFF -DPUSHPULL_BUILD_EXAMPLES=OFF
build benchmarks
filter="${1:-.}"
for program in "$root"/build/benchmarks/benchmarks/bin/pushpull.bench.*; do
  # A program none of whose benchmarks matches would complain.
  if "$program" --benchmark_list_tests --benchmark_filter="$filter" 2> /dev/null | grep -q .; then
    echo "== ${program##*/}"
    "$program" --benchmark_filter="$filter"
  fi
done
