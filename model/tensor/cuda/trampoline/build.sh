#!/bin/sh
# build.sh OUTDIR makes OUTDIR/libcuda.a from symbols.txt, the driver's entry points that gorgonia.org/cu and this package call.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUTDIR}
mkdir -p "$out"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
awk 'NF && $1 !~ /^#/ { printf "LIFT_SYMBOL(%s, %d)\n", $1, n++ }' "$here/symbols.txt" >"$tmp/symbols.inc"
cc=${CC:-cc}
$cc -O2 -fPIC -Wall -Wextra -Werror -I "$tmp" -c "$here/trampoline.c" -o "$tmp/trampoline.o"
$cc -fPIC -I "$tmp" -c "$here/trampoline.S" -o "$tmp/stubs.o"
rm -f "$tmp/libcuda.a"
ar rc "$tmp/libcuda.a" "$tmp/trampoline.o" "$tmp/stubs.o"
mv "$tmp/libcuda.a" "$out/libcuda.a"
