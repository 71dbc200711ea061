#!/usr/bin/env bash
# Builds what goes to hosts and into AWS:
#   dist/host-runner            glibc 2.17, at most 6 MiB
#   dist/lambdas/NAME.zip       x86_64, glibc 2.34 (provided.al2023), at most 5 MiB; dist/lambdas-arm64/ where the target's library is installed
#   dist/templates/NAME.yaml
#   dist/SHA256SUMS             of all of them
set -euo pipefail
cd "$(dirname "$0")/.."
target_dir=${CARGO_TARGET_DIR:-target}
venv=$target_dir/venv-dist
functions=(copy-snapshots copy-hsm-backups settle-copies expire-copies audit-recovery)

die() {
    echo "dist: $*" >&2
    exit 1
}

build() { # TARGET GLIBC PACKAGE PROGRAM
    PATH="$PWD/$venv/bin:$PATH" cargo zigbuild --profile dist --target "$1.$2" --package "$3" --bin "$4"
    local built=$target_dir/$1/dist/$4 newest
    newest=$(readelf --version-info "$built" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
    [ "$(printf '%s\nGLIBC_%s\n' "$newest" "$2" | sort -V | tail -1)" = "GLIBC_$2" ] || die "$4 needs $newest, newer than $2"
}

limit() { # FILE MIB
    local size
    size=$(stat -c %s "$1")
    [ "$size" -le $(($2 * 1024 * 1024)) ] || die "$1 has $size bytes, more than $2 MiB"
    echo "$1: $size bytes"
}

pack() { # PROGRAM ZIP: one entry `bootstrap`, mode 0755, of no date, so that the same program is the same archive
    "$venv/bin/python" - "$1" "$2" <<'PYTHON'
import sys, zipfile
program, archive = sys.argv[1:]
entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
entry.create_system, entry.external_attr, entry.compress_type = 3, 0o100755 << 16, zipfile.ZIP_DEFLATED
with open(program, "rb") as file, zipfile.ZipFile(archive, "w") as out:
    out.writestr(entry, file.read(), compresslevel=9)
PYTHON
}

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import ziglang' 2>/dev/null || "$venv/bin/pip" install --quiet cargo-zigbuild ziglang

rm -rf dist
mkdir -p dist/templates
build x86_64-unknown-linux-gnu 2.17 tde2hsm-host-runner host-runner
cp "$target_dir/x86_64-unknown-linux-gnu/dist/host-runner" dist/host-runner
limit dist/host-runner 6

lambdas() { # TARGET DIRECTORY
    build "$1" 2.34 tde2hsm-lambdas bootstrap
    mkdir -p "dist/$2"
    for name in "${functions[@]}"; do
        pack "$target_dir/$1/dist/bootstrap" "dist/$2/$name.zip"
        limit "dist/$2/$name.zip" 5
    done
}
lambdas x86_64-unknown-linux-gnu lambdas
arm=aarch64-unknown-linux-gnu
if [ -d "$(rustc --print sysroot)/lib/rustlib/$arm/lib" ]; then
    lambdas "$arm" lambdas-arm64
else
    echo "dist: no arm64 functions: this toolchain has no library for $arm (rustup target add $arm)" >&2
fi

cp infra/source.yaml infra/dr.yaml dist/templates/
cd dist
mapfile -t made < <(find . -type f -printf '%P\n' | LC_ALL=C sort)
sha256sum "${made[@]}" >SHA256SUMS
cd ..
cat dist/SHA256SUMS
