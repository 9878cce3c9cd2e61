#!/bin/sh
# Writes *.pb.go from liftpb/lift.proto into the given directory (default: liftpb). Needs protoc (Debian: protobuf-compiler); the plugins are go.mod's tools.
set -eu
cd "$(dirname "$0")"
out=${1:-liftpb}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
for plugin in protoc-gen-go protoc-gen-go-grpc; do
	printf '#!/bin/sh\nexec go tool %s\n' "$plugin" >"$bin/$plugin"
	chmod +x "$bin/$plugin"
done
PATH="$bin:$PATH" protoc -I liftpb --go_out="$out" --go_opt=paths=source_relative \
	--go-grpc_out="$out" --go-grpc_opt=paths=source_relative liftpb/lift.proto
