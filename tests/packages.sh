#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

if (($#)); then
  [[ $1 == -h || $1 == --help ]] || fail "Unknown option $1; see --help."
  cat <<'HELP'
Usage: tests/packages.sh

Makes the Debian packages (cmake/packaging/deb.sh), asks lintian about them, installs them in a root
of debootstrap's with nothing else in it, runs bilevel-tune there, and compiles and runs
tests/consumer against them; then takes them away again. Needs root, debootstrap and a network;
without these it says so and ends well. The root stays in build/deb/root for the next time.
HELP
  exit 0
fi

skip() { say "SKIPPED: $*"; exit 0; }
((EUID == 0)) || skip "root is needed for a chroot."
command -v debootstrap >/dev/null || skip "debootstrap is not installed."

cmake/packaging/deb.sh
root=$PWD/build/deb/root
if command -v lintian >/dev/null; then
  say "lintian"
  lintian --fail-on error,warning build/deb/*.deb || fail "lintian has something to say."
else
  say "lintian is not installed, and not asked."
fi

if [[ ! -e $root/etc/debian_version ]]; then
  say "Making a bare root."
  rm -rf "$root"
  debootstrap --variant=minbase bookworm "$root" >build/deb/debootstrap.log 2>&1 || {
    tail -3 build/deb/debootstrap.log
    rm -rf "$root"
    skip "debootstrap failed; without a network there is nothing to install from."
  }
fi
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
apt() { inside apt-get -qq -o Dpkg::Use-Pty=0 "$@" >>build/deb/apt.log 2>&1 || { tail -20 build/deb/apt.log; fail "apt-get $1 failed."; }; }
: >build/deb/apt.log
purge() { inside dpkg --purge bilevel-tune libbilevel-dev libbilevel-doc libbilevel0.1 >>build/deb/apt.log 2>&1; }
purge || true
rm -rf "$root/packages"
mkdir "$root/packages"
cp build/deb/*.deb "$root/packages/"
all=("$root"/packages/*.deb)
command=("$root"/packages/bilevel-tune_*.deb "$root"/packages/libbilevel0*.deb)
apt update

say "The command alone."
apt install --no-install-recommends -y "${command[@]#"$root"}"
code=0
inside bilevel-tune pose-graph --simulate --quick --output=/tmp/made.g2o --json=/tmp/made.json | head -1 || code=$?
((code == 0)) || fail "bilevel-tune ended with $code."
inside bilevel-tune pose-graph /tmp/made.g2o | head -1 || code=$?
((code == 0 || code == 3 || code == 4)) || fail "bilevel-tune ended with $code on a g2o file."
inside bilevel-tune --version

say "A program against the library."
apt install --no-install-recommends -y "${all[@]#"$root"}" cmake g++ make pkg-config
rm -rf "$root/consumer"
cp -r tests/consumer "$root/consumer"
# shellcheck disable=SC2016  # The shell inside expands it.
{ inside cmake -S /consumer -B /consumer/build && inside cmake --build /consumer/build &&
  inside /consumer/build/consumer &&
  inside sh -c 'g++ -O1 /consumer/main.cc $(pkg-config --cflags --libs bilevel) -o /consumer/by_pkg_config' &&
  inside /consumer/by_pkg_config; } >build/deb/consumer.log 2>&1 ||
  { tail -20 build/deb/consumer.log; fail "The consumer failed."; }

say "And away again."
purge || fail "dpkg --purge failed; its output is in build/deb/apt.log."
left=$(inside find / -xdev -path /proc -prune -o -path /packages -prune -o -path /consumer -prune -o \
  -ipath '*bilevel*' -not -path '/var/lib/apt/*' -print)
[[ -z $left ]] || fail "Left behind: $left"
say "The packages are well."
