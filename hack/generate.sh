#!/bin/sh
# Turns the .proto files into code, with the protoc of the distribution and the plugins
# of tools/proto. The code is checked in; a build needs none of this.
set -eu

cd "$(dirname "$0")/.."
command -v protoc >/dev/null || {
	echo "generate: protoc is missing: install protobuf-compiler" >&2
	exit 1
}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go -C tools/proto build -o "$bin/" tool
cd pkg/shim/debug/debugapi
PATH=$bin:$PATH protoc --go_out=paths=source_relative:. --go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative debug.proto
