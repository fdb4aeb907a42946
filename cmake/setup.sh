# shellcheck shell=bash
# Sourced by the run.sh scripts: finds the tools, installs what is missing, configures and builds.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# The CUDA Toolkit does not put its compiler on the path.
if ! command -v nvcc > /dev/null && [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]]; then
  PATH="${CUDA_HOME:-/usr/local/cuda}/bin:$PATH"
fi

fail() {
  echo "pushpull: $*" >&2
  exit 1
}

# as_root <command>...
as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  else
    sudo "$@"
  fi
}

# need_packages <Debian package>...: installs those that are missing; silent if there are none. Where there is no
# apt-get, or PUSHPULL_NO_INSTALL is set, CMake says what it does not find.
need_packages() {
  if [[ -n ${PUSHPULL_NO_INSTALL:-} ]] || ! command -v apt-get > /dev/null; then
    return 0
  fi
  local package missing=()
  for package in "$@"; do
    case $package in  # any compiler and any build of these tools will do
      g++) command -v "${CXX:-c++}" > /dev/null && continue ;;
      cmake) command -v cmake > /dev/null && continue ;;
      ninja-build) command -v ninja > /dev/null && continue ;;
    esac
    dpkg -s "$package" 2> /dev/null | grep -q '^Status: install ok installed' || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0

  if [[ $EUID -ne 0 ]] && ! command -v sudo > /dev/null; then
    fail "please have these Debian packages installed, which needs root: ${missing[*]}" \
      "(or set PUSHPULL_NO_INSTALL=1 if you have them from elsewhere)"
  fi
  echo "pushpull: installing ${missing[*]}" >&2
  as_root apt-get update -qq >&2 || echo "pushpull: apt-get update failed; trying with the lists that are here" >&2
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}" >&2 ||
    fail "apt-get could not install ${missing[*]}"
}

# What every build needs. CUDA is never installed: without nvcc the CPU part is built.
need_build_packages() {
  need_packages g++ cmake ninja-build libtbb-dev libxsimd-dev nlohmann-json3-dev "$@"
}

# configure <build folder> <CMake option>...: shows warnings and errors, and everything if it fails.
configure() {
  local build="$root/build/$1" generator=()
  shift
  mkdir -p "$build"
  if [[ -f $build/CMakeCache.txt ]]; then  # whose generator stays; one of a folder that was moved is of no use
    grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt" || generator=(--fresh)
  fi
  if [[ ! -f $build/CMakeCache.txt || ${#generator[@]} -gt 0 ]] && command -v ninja > /dev/null; then
    generator+=(-G Ninja)
  fi
  cmake -S "$root" -B "$build" "${generator[@]}" "$@" > "$build/configure.log" || {
    cat "$build/configure.log" >&2
    fail "CMake could not configure $build"
  }
}

# configure_examples: in the build folder examples-release, whose programs tests use too.
configure_examples() {
  configure examples-release -DCMAKE_BUILD_TYPE=Release -DPUSHPULL_BUILD_TESTS=OFF -DPUSHPULL_BUILD_BENCHMARKS=OFF
}

# jobs <GiB>: how many compilers may run at once: one per processor, if each finds that much memory.
jobs() {
  local processors memory
  processors=$(nproc)
  memory=$(awk -v each="$1" '/^MemAvailable:/ { print int($2 / (each * 1048576)) }' /proc/meminfo 2> /dev/null || true)
  memory=${memory:-$processors}
  echo $((memory < 1 ? 1 : memory < processors ? memory : processors))
}

# build <build folder> [<target>]
build() {
  cmake --build "$root/build/$1" --parallel "$(jobs "${gib_per_compiler:-3}")" ${2:+--target "$2"} >&2
}
