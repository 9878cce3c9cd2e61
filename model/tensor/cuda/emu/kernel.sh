#!/bin/sh
# kernel.sh SOURCE.cu OBJECT.o COMPILER FLAGS...: compiles one file of kernels for the emulator.
#
# The preprocessed text still says __global__ and __shared__. Dynamic shared memory (extern __shared__) is the emulator's one
# array, static shared memory a static variable; each entry point gets a row in the table of kernels, with its launch bounds.
set -eu
src=$1 obj=$2
shift 2
base=${obj%.o}
src=$(cd "$(dirname "$src")" && pwd)/$(basename "$src")
"$@" -E -x c++ "$src" | tr '\n' ' ' | sed 's/__global__/\n&/g' | sed 1d >"$base.entries"
sed -nE 's/^__global__ +(void +)?__launch_bounds__ *\(([^()]*)\) *(void +)?([A-Za-z0-9_]+) *\(.*/CUEMU_KERNEL(\4, \2)/p
         s/^__global__ +void +([A-Za-z0-9_]+) *\(.*/CUEMU_KERNEL(\1)/p' "$base.entries" >"$base.rows"
if [ "$(grep -c . "$base.rows")" != "$(grep -c . "$base.entries")" ]; then
    echo "$src: a kernel is not of the form  __global__ void [__launch_bounds__(...)] NAME(" >&2
    exit 1
fi
printf '#include "%s"\n' "$src" | cat - "$base.rows" >"$base.cc"
"$@" -E -MMD -MP -MT "$obj" -MF "$base.d" "$base.cc" |
    sed -E 's/extern +__shared__/extern/; s/__shared__/static/g; s/__global__//g; s/__launch_bounds__ *\([^()]*\)//g' >"$base.ii"
"$@" -fpreprocessed -x c++-cpp-output -c "$base.ii" -o "$obj"
