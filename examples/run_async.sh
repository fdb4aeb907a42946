#!/usr/bin/env bash
# Trains on two servers and three workers of this machine, asynchronously, bounded and in rounds, and in step for comparison:
# examples/run_async.sh [folder for the curves]. In the middle one worker is killed; another comes late.
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

folder="${1:-$root/build/async}"
need_build_packages librange-v3-dev libeigen3-dev zlib1g-dev libcli11-dev libzmq3-dev cppzmq-dev
configure_examples
build examples-release pushpull.example.train_async_zmq
program="$root/build/examples-release/examples/train_async_zmq"
mkdir -p "$folder"

"$program" --steps 200 --pause 10 --history "$folder/in_step.csv"

jobs=()
killed=
trap 'kill ${killed:-} "${jobs[@]}" 2> /dev/null || true' EXIT  # one that failed leaves no others behind

export DMLC_PS_ROOT_URI=127.0.0.1 DMLC_NUM_SERVER=2 DMLC_NUM_WORKER=2
for mode in rounds bounded asynchronous; do
  echo "$mode:"
  DMLC_PS_ROOT_PORT=$((20000 + RANDOM % 10000))
  export DMLC_PS_ROOT_PORT
  DMLC_ROLE=scheduler "$program" &
  jobs=($!)
  for _ in 1 2; do
    DMLC_ROLE=server "$program" --mode "$mode" &
    jobs+=($!)
  done
  DMLC_ROLE=worker DMLC_WORKER_ID=0 "$program" --steps 200 --pause 10 --history "$folder/$mode.csv" &
  jobs+=($!)
  DMLC_ROLE=worker DMLC_WORKER_ID=1 "$program" --steps 1000000 --pause 10 &
  killed=$!
  sleep 1
  DMLC_ROLE=worker "$program" --steps 100 --pause 20 &  # late, and slow
  jobs+=($!)
  sleep 1
  kill -9 "$killed" || true
  wait "$killed" 2> /dev/null || true
  killed=
  for job in "${jobs[@]}"; do
    wait "$job"
  done
  jobs=()
done

if python3 -c 'import matplotlib' 2> /dev/null; then
  "$root/examples/plot_history.py" "$folder"/*.csv --out "$folder/curves.png"
  echo "curves: $folder/curves.png"
else
  echo "curves: $folder/*.csv (a picture of them needs python3-matplotlib)"
fi
