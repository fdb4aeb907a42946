#!/usr/bin/env bash
# Builds and runs the benchmarks: benchmarks/run.sh [filter], a regular expression on their names.
# benchmarks/run.sh compare [options]: against other libraries, which are installed first; --help lists the options.
# benchmarks/run.sh compare --peers [options]: against optimizers that other libraries are known for.
# benchmarks/run.sh dist [MiB|bert-base [turns]]: a step over 2 and over 4 MPI ranks of this machine.
# benchmarks/run.sh dist --compare [options]: BERT-base over 2 ranks, beside PyTorch's DDP, which is installed first.
# benchmarks/run.sh servers [MiB [turns [Gbit/s]]]: a worker with a server, beside the bare exchange of messages, TCP and the pass
# alone; with a speed, over a link of that speed.
# benchmarks/run.sh servers --compare [options]: beside MXNet's dist_async, which is installed first.
# benchmarks/run.sh compile-time [options]: what compiling costs.
# benchmarks/run.sh report: tables and plots from what was measured, inserted into docs/performance.md.
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

comparing_python="$root/build/baselines/matplotlib/venv/bin/python"

if [[ ${1:-} == report ]]; then
  "$root/benchmarks/baselines/install.sh" matplotlib
  for lines in "$root"/benchmarks/results/compare*.jsonl; do
    [[ ! -e $lines ]] || "$comparing_python" "$root/benchmarks/compare/report.py" "$lines"
  done
  exec python3 "$root/benchmarks/insert_results.py"
fi

[[ ${1:-} != dist ]] || need_packages libopenmpi-dev openmpi-bin
[[ ${1:-} != servers ]] || need_packages libzmq3-dev cppzmq-dev
need_build_packages libbenchmark-dev libeigen3-dev
configure benchmarks -DCMAKE_BUILD_TYPE=Release -DPUSHPULL_BUILD_TESTS=OFF -DPUSHPULL_BUILD_EXAMPLES=OFF \
  -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
programs="$root/build/benchmarks/benchmarks"

if [[ ${1:-} == compare ]]; then
  shift
  if [[ " $* " == *" --peers "* ]]; then
    need_packages libopenblas-dev
    "$root/benchmarks/baselines/install.sh" peers
  else
    "$root/benchmarks/baselines/install.sh"
  fi
  [[ -x $comparing_python ]] || fail "the comparison needs numpy and matplotlib: see build/baselines/matplotlib/install.log"
  program=pushpull.bench.compare
  for option in "$@"; do
    [[ $option == --gpu ]] && program=pushpull.bench.compare.cuda
  done
  build benchmarks "$program"
  exec "$comparing_python" "$root/benchmarks/compare/compare.py" --program "$programs/$program" "$@"
fi

if [[ ${1:-} == dist ]]; then
  shift
  build benchmarks pushpull.bench.dist
  # More ranks than processors, as root in containers; other MPIs do not know these variables.
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
    OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
  if [[ ${1:-} == --compare ]]; then
    shift
    "$root/benchmarks/baselines/install.sh" pytorch
    torch_python="$root/build/baselines/pytorch/venv/bin/python"
    [[ -x $torch_python ]] || fail "the comparison needs PyTorch: see build/baselines/pytorch/install.log"
    exec python3 "$root/benchmarks/dist/compare.py" --program "$programs/pushpull.bench.dist" \
      --torch-python "$torch_python" "$@"
  fi
  for ranks in 2 4; do
    mpiexec -n "$ranks" "$programs/pushpull.bench.dist" "$@"
  done
  exit
fi

if [[ ${1:-} == servers ]]; then
  shift
  build benchmarks pushpull.bench.servers
  if [[ ${1:-} == --compare ]]; then
    shift
    "$root/benchmarks/baselines/install.sh" mxnet
    mxnet_python="$root/build/baselines/mxnet/venv/bin/python"
    [[ -x $mxnet_python ]] || fail "the comparison needs MXNet: see build/baselines/mxnet/install.log"
    exec python3 "$root/benchmarks/servers/compare.py" --program "$programs/pushpull.bench.servers" \
      --mxnet-python "$mxnet_python" "$@"
  fi
  exec "$programs/pushpull.bench.servers" "$@"
fi

if [[ ${1:-} == compile-time ]]; then
  shift
  need_packages catch2
  exec python3 "$root/benchmarks/compile_time.py" "$@"
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
