#!/usr/bin/env bash
# Installs what a build or a test needs, or says in one line what is missing and how to get it.
#   tools.sh        what the build, the demo and the tests need
#   tools.sh lint   what `make lint` needs
#   tools.sh dist   what `make dist` needs
set -euo pipefail

die() {
    echo "tde2hsm: $*" >&2
    exit 69
}

debian() { # PROGRAM-OR-FILE PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "tde2hsm: installing Debian package $2" >&2
        [ -n "${APT_UPDATED:-}" ] || apt-get update -qq >&2
        APT_UPDATED=1
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1 || die "could not install package $2; install it by hand"
    else
        die "missing $1; install package $2 (Debian: sudo apt-get install $2)"
    fi
}

virtualenv() { # NAME PROBE PACKAGE...
    local venv="${CARGO_TARGET_DIR:-target}/$1" probe=$2
    shift 2
    "$venv/bin/python" -c "$probe" 2>/dev/null && return 0
    command -v python3 >/dev/null 2>&1 || die "missing python3"
    echo "tde2hsm: installing $*" >&2
    python3 -m venv "$venv" || die "could not make a virtual environment; install package python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" || die "could not install $*"
}

cd "$(dirname "$0")/.."
command -v cargo >/dev/null 2>&1 || die "missing cargo; install Rust 1.95 or later from your distribution or rustup"

case "${1:-}" in
lint)
    debian shellcheck shellcheck
    virtualenv venv-lint "import cfnlint, checkov" "cfn-lint~=1.58" "checkov~=3.3"
    command -v cargo-deny >/dev/null 2>&1 || cargo install --locked --version "^0.20" cargo-deny >&2 || cargo install --locked cargo-deny >&2 || die "could not install cargo-deny; run: cargo install cargo-deny"
    ;;
dist)
    command -v python3 >/dev/null 2>&1 || die "missing python3"
    ;;
*)
    debian cc gcc
    debian /usr/lib/softhsm/libsofthsm2.so softhsm2
    debian rpm rpm
    debian unshare util-linux
    debian newuidmap uidmap
    debian strace strace
    command -v python3 >/dev/null 2>&1 || die "missing python3 (for the tests with boto3)"
    ;;
esac
