#!/bin/sh
# pkg_config.sh <source> <version> <pkg-config> <CUDA Toolkit> <compiler>...: builds a program with the flags that pkg-config
# names, and runs it.
set -eu
source=$1 version=$2 pkg_config=$3 toolkit=$4
shift 4
[ "$("$pkg_config" --modversion pushpull)" = "$version" ]
flags=$("$pkg_config" "--define-variable=cudadir=$toolkit" --cflags pushpull)
libraries=$("$pkg_config" --libs pushpull)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# shellcheck disable=SC2086  # several words each
"$@" $flags -c "$source" -o "$folder/consumer.o"
# shellcheck disable=SC2086
"$@" "$folder/consumer.o" $libraries -o "$folder/consumer"
"$folder/consumer" "$version"
