#!/usr/bin/env bash
# Builds the tests of comm::nccl over NCCL itself, and runs each on this machine's GPUs.
#   tests/nccl/on_card.sh [arguments for cmake, such as -DPUSHPULL_NCCL_LIBRARY=/opt/nccl/lib/libnccl.so]
# NCCL 2.30 and newer let several ranks share a GPU, so that one GPU suffices; with an older NCCL each GPU is a rank.
# ON_CARD_PROGRAM=program runs one that is built already.
set -euo pipefail
folder=$(dirname "$(realpath "$0")")
program=${ON_CARD_PROGRAM:-}
if [[ -z $program ]]; then
  root=$(dirname "$(dirname "$folder")")
  build=$root/build/on_card
  cmake -S "$root" -B "$build" -DPUSHPULL_TEST_FOLDERS=nccl -DPUSHPULL_BUILD_EXAMPLES=OFF -DPUSHPULL_BUILD_BENCHMARKS=OFF \
    -DPUSHPULL_TORCH=OFF -DPUSHPULL_EMULATE_CUDA=OFF "$@"
  cmake --build "$build" --parallel --target pushpull.test.nccl.on_card
  program=$(find "$build" -name pushpull.test.nccl.on_card -type f)
fi

# Ranks of one process that share a GPU wait for each other inside of kernels: all kernels have to be loaded before, few blocks
# of threads may wait, and no stream may wait for another.
export CUDA_MODULE_LOADING=EAGER CUDA_DEVICE_MAX_CONNECTIONS=32
export NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-4} NCCL_NVLS_ENABLE=0 NCCL_DEBUG=${NCCL_DEBUG:-WARN}
names=$("$program" --list-test-names-only '~[faults]' 2>/dev/null || true)  # Catch2 2
[[ -n $names ]] || names=$("$program" --list-tests --verbosity quiet '~[faults]')
nvidia-smi -L | grep -q GPU || { echo "no GPU: nothing would be tested" >&2; exit 1; }
failed=0 passed=0 skipped=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
run() {  # a rank per GPU, or several
  local name
  while IFS= read -r name; do
    [[ -n $name ]] || continue
    # A comma separates tests for Catch2.
    if ! timeout 150 "$program" "${name//,/\\,}" -d yes 2>&1 | tee "$output"; then
      echo "== FAILED, $1: $name"
      failed=$((failed + 1))
    elif grep -q 'assertions: - none -' "$output"; then  # a case that needs more ranks returns at once
      echo "== skipped: too few ranks, $1: $name"
      skipped=$((skipped + 1))
    else
      echo "== passed, $1: $name"
      passed=$((passed + 1))
    fi
  done <<<"$names"
}
NCCL_MULTI_RANK_GPU_ENABLE=0 run "a rank per GPU"
NCCL_MULTI_RANK_GPU_ENABLE=1 run "ranks share GPUs where NCCL is 2.30 or newer"
echo "== $passed passed, $skipped skipped, $failed failed"
[[ $failed -eq 0 && $passed -gt 0 ]]
