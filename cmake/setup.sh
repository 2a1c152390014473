# shellcheck shell=bash
# Sourced by examples/run.sh and tests/run.sh, from the top of the checkout.

say() { printf '\n== [%d s] %s\n' "$SECONDS" "$*"; }
fail() { printf '\n== %s\n' "$*" >&2; exit 1; }

# apt_install PACKAGE...: quietly, nothing but them.
apt_install() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  if ((EUID)); then
    command -v sudo >/dev/null || fail "Run this as root, or install $* first."
    apt=(sudo "${apt[@]}")
  fi
  mkdir -p build
  { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >>build/apt.log 2>&1
}

# Installs with apt what is missing, and nothing else. LibTorch, 60 MB, and Open MPI come along with
# other packages; without them bilevel::torch and bilevel::mpi are not built.
install_requirements() {
  local missing=() entry package
  for entry in c++:g++ cmake:cmake ninja:ninja-build gnuplot:gnuplot-nox xz:xz-utils bzcat:bzip2; do
    command -v "${entry%:*}" >/dev/null || missing+=("${entry#*:}")
  done
  if ! command -v apt-get >/dev/null; then
    say "This is not a Debian-like system: Ceres, Eigen, GoogleTest, SuiteSparse${missing[*]:+, ${missing[*]}} must be there already."
    return
  fi
  for package in libceres-dev libeigen3-dev libsuitesparse-dev libgtest-dev libgmock-dev libpng-dev \
    zlib1g-dev libbz2-dev liblzma-dev; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "Installing with apt: ${missing[*]}."
  apt_install "${missing[@]}" || { tail -20 build/apt.log; fail "apt failed; its output is in build/apt.log."; }
  apt_install libopenmpi-dev openmpi-bin || say "There is no Open MPI to install: bilevel::mpi is left out."
  apt_install libtorch-dev || say "There is no libtorch-dev to install: bilevel::torch is left out."
}

# Clang with its sanitizers and libFuzzer.
install_clang() {
  local version
  command -v clang++ >/dev/null || { say "Installing clang." && apt_install clang; } ||
    fail "clang++ is missing."
  version=$(clang++ --version | sed -nE 's/.*clang version ([0-9]+).*/\1/p')
  compgen -G "$(clang++ -print-resource-dir)/lib/*/libclang_rt.asan*.a" >/dev/null ||
    apt_install "libclang-rt-$version-dev" || fail "The sanitizers of clang $version are missing."
}

# The data of the tests, unless BILEVEL_DATA_DIR names another folder.
find_data() {
  if [[ -z ${BILEVEL_DATA_DIR:-} && -d ../shared/data ]]; then
    BILEVEL_DATA_DIR=$(cd ../shared/data && pwd)
    export BILEVEL_DATA_DIR
  fi
}

# As many jobs as cores and memory (2 GB a job) allow.
num_jobs() {
  local jobs by_memory
  jobs=$(nproc)
  by_memory=$(awk '/MemAvailable/ {print int($2 / 2e6)}' /proc/meminfo)
  ((by_memory >= jobs)) || jobs=$((by_memory > 1 ? by_memory : 1))
  echo "$jobs"
}

# build TARGET: release build in build/.
build() {
  local generator=() jobs
  mkdir -p build
  [[ -f build/CMakeCache.txt ]] || generator=(-G Ninja)
  say "Configuring in build/."
  cmake -S . -B build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release >build/configure.log 2>&1 ||
    { tail -30 build/configure.log; fail "Configuring failed; its output is in build/configure.log."; }
  jobs=$(num_jobs)
  say "Building with $jobs jobs."
  cmake --build build --target "$1" --parallel "$jobs" || fail "The build failed."
}
