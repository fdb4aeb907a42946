#!/usr/bin/env bash
# Builds and runs the benchmarks: benchmarks/run.sh [filter], a regular expression on their names.
# benchmarks/run.sh compare [options]: against other libraries, which are installed first; --help lists the options.
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

need_build_packages libbenchmark-dev libeigen3-dev
configure benchmarks -DCMAKE_BUILD_TYPE=Release -DPUSHPULL_BUILD_TESTS=OFF -DPUSHPULL_BUILD_EXAMPLES=OFF
programs="$root/build/benchmarks/benchmarks"

if [[ ${1:-} == compare ]]; then
  shift
  "$root/benchmarks/baselines/install.sh"
  python="$root/build/baselines/matplotlib/venv/bin/python"
  [[ -x $python ]] || fail "the comparison needs numpy and matplotlib: see build/baselines/matplotlib/install.log"
  program=pushpull.bench.compare
  for option in "$@"; do
    [[ $option == --gpu ]] && program=pushpull.bench.compare.cuda
  done
  build benchmarks "$program"
  exec "$python" "$root/benchmarks/compare/compare.py" --program "$programs/$program" "$@"
fi

build benchmarks
filter="${1:-.}"
for program in "$programs"/bin/pushpull.bench.*; do
  # A program none of whose benchmarks matches would complain.
  if "$program" --benchmark_list_tests --benchmark_filter="$filter" 2> /dev/null | grep -q .; then
    echo "== ${program##*/}"
    "$program" --benchmark_filter="$filter"
  fi
done
