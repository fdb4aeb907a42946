#!/usr/bin/env bash
# Builds and runs the example: examples/run.sh [its arguments], for instance examples/run.sh --help
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

need_build_packages librange-v3-dev libeigen3-dev zlib1g-dev libcli11-dev
configure examples-release -DCMAKE_BUILD_TYPE=Release -DPUSHPULL_BUILD_TESTS=OFF -DPUSHPULL_BUILD_BENCHMARKS=OFF
build examples-release pushpull.example.train_classifier
exec "$root/build/examples-release/examples/train_classifier" "$@"
