#!/bin/sh
# build.sh OUTDIR [asan]: builds OUTDIR/liftemu.so, the emulated driver with all kernels of ../kernels (or of $KERNELS).
# Only what changed is compiled again. The AddressSanitizer build needs a directory of its own.
set -eu
out=${1:?build.sh OUTDIR [asan]}
mkdir -p "$out"
out=$(cd "$out" && pwd)
san=
[ "${2:-}" = asan ] && san=address
exec make -s -j "$(nproc)" -C "$(dirname "$0")" OUT="$out" SAN=$san KERNELS="${KERNELS:-../kernels}"
