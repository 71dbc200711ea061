#!/usr/bin/env bash
# Builds what goes to hosts: dist/host-runner (glibc 2.17, at most 6 MiB) and dist/SHA256SUMS.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/venv-dist
target=x86_64-unknown-linux-gnu
[ -x $venv/bin/python ] || python3 -m venv $venv
$venv/bin/python -c 'import ziglang' 2>/dev/null || $venv/bin/pip install --quiet cargo-zigbuild ziglang
PATH="$PWD/$venv/bin:$PATH" cargo zigbuild --profile dist --target $target.2.17 --package tde2hsm-host-runner --bin host-runner
mkdir -p dist
cp target/$target/dist/host-runner dist/host-runner
size=$(stat -c %s dist/host-runner)
if [ "$size" -gt $((6 * 1024 * 1024)) ]; then
    echo "dist: host-runner has $size bytes, more than 6 MiB" >&2
    exit 1
fi
newest=$(objdump -T dist/host-runner | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
if [ "$(printf '%s\nGLIBC_2.17\n' "$newest" | sort -V | tail -1)" != GLIBC_2.17 ]; then
    echo "dist: host-runner needs $newest, newer than 2.17" >&2
    exit 1
fi
(cd dist && sha256sum host-runner > SHA256SUMS)
echo "dist/host-runner: $size bytes, $newest"
