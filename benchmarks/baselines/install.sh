#!/usr/bin/env bash
# Installs the baselines of the comparison: benchmarks/baselines/install.sh [name...], all unless some are named.
# Each of <name>/requirements.txt goes from PyPI into an environment of its own, build/baselines/<name>/venv, which also sees
# the packages of another baseline that a line "# with: NAME" names. What was installed is in version.txt beside it, or in
# missing.txt why it was not: the comparison shows either. The newest PyTorch carries CUDA; with PyTorch 1.13 that is 9 GB.
# The name `peers` is short for the baselines of compare --peers: 12 GB.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
# shellcheck source=cmake/setup.sh
source "$here/../../cmake/setup.sh"
into="$root/build/baselines"

# share <baseline> <venv>: the environment sees the packages of the baseline, if one is named.
share() {
  [[ -n $1 ]] || return 0
  local site theirs
  theirs="$(echo "$into/$1"/venv/lib/python3*/site-packages)"
  site="$(echo "$2"/lib/python3*/site-packages)"
  if [[ ! -d $theirs ]]; then
    echo "error: the baseline $1, whose packages it needs, is not installed"
    return 1
  fi
  echo "$theirs" > "$site/baseline.pth"
}

install() {
  local name="$1" folder="$into/$1" requirements="$here/$1/requirements.txt" packages base
  [[ -f $requirements ]] || fail "no baseline is called $name"
  base="$(sed -n 's/^# with: //p' "$requirements")"
  [[ -z $base ]] || install "$base"
  mapfile -t packages < <(sed -E 's/[ #].*//; s/[<>=].*//; /^$/d' "$requirements")
  if [[ -f $folder/version.txt ]] && cmp -s "$requirements" "$folder/requirements.txt"; then
    return
  fi
  echo "pushpull: installing the baseline $name" >&2
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$requirements" "$folder/"
  if python3 -m venv "$folder/venv" &> "$folder/install.log" &&
    share "$base" "$folder/venv" &>> "$folder/install.log" &&
    "$folder/venv/bin/pip" install --no-cache-dir -r "$requirements" &>> "$folder/install.log"; then
    "$folder/venv/bin/python" - "${packages[@]}" > "$folder/version.txt" << 'PYTHON'
import platform, sys
from importlib.metadata import version
named = [name for name in sys.argv[1:] if name not in ("ninja", "setuptools")]
print(", ".join(f"{name} {version(name)}" for name in named) + f", Python {platform.python_version()}")
PYTHON
  else
    grep -iE 'error|no matching' "$folder/install.log" | tail -1 > "$folder/missing.txt"
    [[ -s $folder/missing.txt ]] || tail -1 "$folder/install.log" > "$folder/missing.txt"
    rm -rf "$folder/venv"
    echo "pushpull: $name could not be installed: $(cat "$folder/missing.txt")" >&2
  fi
}

mkdir -p "$into/debian"
if [[ ${1:-} == peers ]]; then
  names=(matplotlib pytorch deepspeed torchao bitsandbytes fbgemm)
elif [[ $# -gt 0 ]]; then
  names=("$@")
else
  names=(matplotlib mxnet jax pytorch pytorch_1_13)
fi
need_packages libeigen3-dev python3-venv
for name in "${names[@]}"; do install "$name"; done

# Header libraries: one line each, the first word is how their contenders' names begin.
{
  echo "Eigen $(dpkg-query -W -f '${Version}' libeigen3-dev 2> /dev/null || echo unknown)"
  thrust="$(find "${CUDA_HOME:-/usr/local/cuda}"/include/ -name version.h -path '*thrust/version.h' 2> /dev/null | head -1)"
  number="$(grep -ohE 'define THRUST_VERSION +[0-9]+' "${thrust:-/dev/null}" | grep -oE '[0-9]+$' || true)"
  [[ -n $number ]] && echo "Thrust $((number / 100000)).$((number / 100 % 1000)).$((number % 100))"
} > "$into/debian/version.txt"
