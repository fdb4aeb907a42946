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
# pkg-config quotes for a shell.
(eval "set -- \"\$@\" $flags" && exec "$@" -c "$source" -o "$folder/consumer.o")
(eval "set -- \"\$@\" \"\$folder/consumer.o\" $libraries" && exec "$@" -o "$folder/consumer")
"$folder/consumer" "$version"
