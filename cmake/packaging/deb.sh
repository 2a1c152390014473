#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source cmake/setup.sh

if (($#)); then
  [[ $1 == -h || $1 == --help ]] || fail "Unknown option $1; see --help."
  cat <<'HELP'
Usage: cmake/packaging/deb.sh

Installs what is missing (Debian, as root or with sudo), and makes the Debian packages libbilevel0.1,
libbilevel-dev, bilevel-tune and libbilevel-doc in build/deb/, with Debian's own compiler flags.
HELP
  exit 0
fi

install_requirements
command -v dpkg-buildflags >/dev/null || apt_install dpkg-dev || fail "dpkg-dev is missing."
flags() { DEB_BUILD_MAINT_OPTIONS=hardening=+all DEB_CXXFLAGS_MAINT_STRIP=-g dpkg-buildflags --get "$1"; }
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CMakeLists.txt)}
export SOURCE_DATE_EPOCH
directory=build/deb
mkdir -p "$directory"
say "Building in $directory."
{ cmake -S . -B "$directory" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_INSTALL_PREFIX=/usr \
    -DBUILD_SHARED_LIBS=ON -DBILEVEL_BUILD_TESTS=OFF -DBILEVEL_WITH_TORCH=OFF \
    -DCMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON -DCMAKE_PROJECT_INCLUDE="$PWD/cmake/packaging/shared_ceres.cmake" \
    "-DCMAKE_CXX_FLAGS=$(flags CXXFLAGS) $(flags CPPFLAGS) -DNDEBUG" \
    "-DCMAKE_SHARED_LINKER_FLAGS=$(flags LDFLAGS)" "-DCMAKE_EXE_LINKER_FLAGS=$(flags LDFLAGS) -pie" &&
  cmake --build "$directory" --target bilevel bilevel_tune --parallel "$(num_jobs)"; } \
  >"$directory/build.log" 2>&1 || { tail -30 "$directory/build.log"; fail "The build failed."; }
rm -f "$directory"/*.deb
(cd "$directory" && cpack -G DEB >cpack.log 2>&1) || { tail -20 "$directory/cpack.log"; fail "cpack failed."; }
say "Packages:"
ls -1 "$directory"/*.deb
