#!/usr/bin/env bash
# Which lines of bilevel/ the tests reach, by file. Installs clang and llvm where they are missing;
# builds in build/coverage/.
# build/coverage/lines.txt has every line with its count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

install_requirements
install_clang
version=$(clang++ --version | sed -nE 's/.*clang version ([0-9]+).*/\1/p')
llvm() {
  local tool=$1
  shift
  if command -v "llvm-$tool-$version" >/dev/null; then "llvm-$tool-$version" "$@"; else "llvm-$tool" "$@"; fi
}
command -v "llvm-cov-$version" >/dev/null || command -v llvm-cov >/dev/null || apt_install llvm ||
  fail "llvm-cov is missing."
find_data
build=$PWD/build/coverage
mkdir -p "$build/profiles"
say "Building in build/coverage/."
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_FLAGS_DEBUG="-O1 -DNDEBUG -fprofile-instr-generate -fcoverage-mapping" \
  -DBILEVEL_WITH_MPI=OFF -DBILEVEL_WITH_TORCH=OFF >"$build/configure.log" 2>&1 ||
  { tail -20 "$build/configure.log"; fail "Configuring failed."; }
cmake --build "$build" --parallel "$(nproc)" || fail "The build failed."
say "Running the tests."
LLVM_PROFILE_FILE="$build/profiles/%m.profraw" ctest --test-dir "$build" --parallel "$(nproc)" |
  tail -5
llvm profdata merge -sparse "$build"/profiles/*.profraw -o "$build/all.profdata"
binaries=()
while IFS= read -r binary; do binaries+=(-object "$binary"); done < <(
  find "$build/tests" "$build/examples" -type f -executable ! -name '*.so*' ! -name '*.cmake')
show=("${binaries[@]:1}" -instr-profile="$build/all.profdata"
  -ignore-filename-regex='/(tests|examples|torch|mpi)/|^/usr/')
llvm cov show "${show[@]}" >"$build/lines.txt"
llvm cov report "${show[@]}" | tee "$build/report.txt"
