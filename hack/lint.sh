#!/bin/sh
# Runs the linters, without changing a file.
#
# usage: hack/lint.sh DIRECTORY-OF-THE-LINTERS
set -eu

bin=$(cd "${1:?usage: hack/lint.sh DIRECTORY}" && pwd)
status=0
failed() {
	echo "lint: $1 has findings"
	status=1
}

echo "    golangci-lint"
if ! "$bin/golangci-lint" config verify || ! "$bin/golangci-lint" run ./...; then
	failed golangci-lint
fi
for mod in test/*/go.mod; do
	[ -e "$mod" ] || continue
	dir=$(dirname "$mod")
	(cd "$dir" && "$bin/golangci-lint" run ./...) || failed "golangci-lint in $dir"
done

echo "    gofumpt"
# shellcheck disable=SC2046 # no name has a space
unformatted=$("$bin/gofumpt" -l $(git ls-files --cached --others --exclude-standard "*.go" ":!*.pb.go"))
if [ -n "$unformatted" ]; then
	echo "$unformatted"
	failed "gofumpt (fix it with make fmt)"
fi

echo "    go vet without grpc, as the shim is built"
go vet -tags no_grpc ./... || failed "go vet"

echo "    the budget of the house, and who may import whom"
go test ./test/house ./test/imports || failed "test/house or test/imports"

echo "    go mod tidy"
for mod in go.mod test/*/go.mod; do
	[ -e "$mod" ] || continue
	go -C "$(dirname "$mod")" mod tidy -diff || failed "$mod"
done

echo "    shellcheck"
# shellcheck disable=SC2046 # no name has a space
shellcheck $(git ls-files --cached --others --exclude-standard '*.sh' .ci/run) || failed shellcheck
exit "$status"
