# shellcheck shell=sh disable=SC2154 # the test sets ns, runtime, dir and examples
# The functions of the rows in *_test.go. $ns is a namespace that no other row has.

k() { kubectl -n "$ns" "$@"; }

# apply [FILE]: the row's manifest, or an example; with runc without its RuntimeClass.
apply() {
	if [ "$runtime" = runc ]; then
		sed '/^ *runtimeClassName:/d' "${1:-$dir/manifest.yaml}" | k apply -f -
	else
		k apply -f "${1:-$dir/manifest.yaml}"
	fi >"$dir/applied" 2>&1 || {
		cat "$dir/applied"
		return 1
	}
}

# ready POD...: waits until they are.
ready() { for p; do k wait --for=condition=Ready "pod/$p" --timeout=100s >/dev/null || why "$p"; done; }

# ended POD: waits until the last container of a pod has, and prints its phase.
ended() {
	k wait --for='jsonpath={.status.containerStatuses[-1].state.terminated.reason}' "pod/$1" --timeout=100s >/dev/null || why "$1"
	await 'eded\|iled' phase "$1" && phase "$1"
}

phase() { k get pod "$1" -o 'jsonpath={.status.phase}{"\n"}'; }

# state POD [INDEX]: how a container has ended.
state() { k get pod "$1" -o "jsonpath={.status.containerStatuses[${2:-0}].state.terminated.reason} {.status.containerStatuses[${2:-0}].state.terminated.exitCode}{\"\\n\"}"; }

# why says all that the cluster knows about a pod that is not what it should be.
why() {
	k get pod "$1" -o wide
	k get events --field-selector "involvedObject.name=$1" -o 'custom-columns=REASON:.reason,MESSAGE:.message' --no-headers
	return 1
}

# await PATTERN COMMAND...: repeats a command until its output has the pattern, and
# prints neither when it comes.
await() {
	pattern=$1 tries=0
	shift
	until got=$("$@" 2>&1) && echo "$got" | grep -q -- "$pattern"; do
		[ $((tries += 1)) -lt 100 ] || { echo "no \"$pattern\" in: $got"; return 1; }
		sleep 0.5
	done
}

# node POD: where it is. on NODE COMMAND...: a command there.
node() { k get pod "$1" -o 'jsonpath={.spec.nodeName}'; }
on() { docker exec "$@"; }

# fetch POD URL: what a pod gets from a server.
fetch() { k exec "$1" -- wget -q -T 5 -O - "$2"; }

# forward POD [PORT]...: to free ports of this machine, which port N gives the number of.
forward() {
	pod=$1
	shift
	kubectl -n "$ns" port-forward "pod/$pod" "$@" >"$dir/forward" 2>&1 &
	await 'Forwarding.*\[::1\]' tail -n 1 "$dir/forward"
}
port() { sed -n "s/^Forwarding from 127.*:\([0-9]*\) -> $1\$/\1/p" "$dir/forward"; }
