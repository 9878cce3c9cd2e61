#!/bin/sh
# build.sh OUTDIR [asan]: builds OUTDIR/liftemu.so, the emulated driver with all kernels of ../kernels (or of $KERNELS).
# Only what changed is compiled again. With asan it is OUTDIR/liftemu.asan.so, in which AddressSanitizer checks every access
# of a kernel: run with LD_PRELOAD=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:halt_on_error=0.
set -eu
out=${1:?build.sh OUTDIR [asan]}
mkdir -p "$out"
out=$(cd "$out" && pwd)
kernels=$(cd "${KERNELS:-$(dirname "$0")/../kernels}" && pwd)
san=
[ "${2:-}" = asan ] && san=.asan
exec make -s -j "$(nproc)" -C "$(dirname "$0")" OUT="$out" SAN=$san KERNELS="$kernels"
