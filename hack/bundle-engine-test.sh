#!/bin/bash
# Tries the bundle of `make dist` with Docker Engine on a private machine: what
# docs/install.md says of docker and nerdctl, and `ccv2 install -kind`. The nodes stand in for
# those of kind: privileged containers with kind's labels and no network, in which a
# containerd runs, and nothing that is ours. What is not real in them is systemctl, and
# kubectl, which writes down what it is told.
#
# usage: hack/bundle-engine-test.sh BUILD-DIR
set -euo pipefail

fail() {
	echo "bundle-engine-test: $*" >&2
	tail -n 20 "$dir"/log/* >&2 || true
	exit 1
}
# await COMMAND...
await() {
	local tries=0
	until "$@" >/dev/null 2>&1; do
		[ $((tries += 1)) -lt 600 ] || fail "this does not come: $*"
		sleep 0.1
	done
}

# image makes the root file system of a node.
image() {
	local name
	mkdir -p "$1"/{bin,sbin,usr/local/bin,etc/containerd,proc,sys,dev,run,tmp,var/lib,root,opt}
	cp "$build/busybox/bin/busybox" "$build/bin/containerd" "$build/bin/ctr" "$1/bin/"
	cp "$build/busybox.tar" "$1/root/"
	for name in sh cat ls rm mount umount ip modprobe sleep kill mkdir grep; do ln -s busybox "$1/bin/$name"; done
	printf 'version = 3\n# of the node\n' >"$1/etc/containerd/config.toml"
	cat >"$1/bin/init" <<'END'
#!/bin/sh
# Keeps a containerd running, until it is told to end.
trap 'kill $pid; exit' TERM
mount -o remount,rw /sys/fs/cgroup
while :; do
	containerd >>/var/containerd.log 2>&1 &
	pid=$!
	echo $pid >/run/containerd.pid
	wait $pid
done
END
	cat >"$1/bin/systemctl" <<'END'
#!/bin/sh
[ "$*" = "restart containerd" ] || exit 1
old=$(cat /run/containerd.pid)
kill "$old"
until [ "$(cat /run/containerd.pid)" != "$old" ] && ctr version >/dev/null 2>&1; do sleep 0.1; done
END
	cat >"$1/bin/kubectl" <<'END'
#!/bin/sh
[ "$1" = --kubeconfig=/etc/kubernetes/admin.conf ] || exit 1
shift
mkdir -p /var/nodes
case $* in
"apply -f -") cat >/var/runtimeclass ;;
"label --overwrite node "*" ccv2.io/runtime=true") : >"/var/nodes/$4" ;;
"label node "*" ccv2.io/runtime-") rm -f "/var/nodes/$3" ;;
"get nodes -l ccv2.io/runtime=true -o name") for node in /var/nodes/*; do [ ! -e "$node" ] || echo "node/${node##*/}"; done ;;
"delete runtimeclass ccv2 --ignore-not-found") rm -f /var/runtimeclass ;;
*) echo "kubectl: $*" >&2; exit 1 ;;
esac
END
	chmod +x "$1"/bin/{init,systemctl,kubectl}
}

# node NAME ROLE
node() {
	docker run -d --name "$1" --hostname "$1" --privileged --network none --tmpfs /run --tmpfs /tmp -v /var \
		--label io.x-k8s.kind.cluster=testing --label "io.x-k8s.kind.role=$2" node /bin/init >/dev/null
	await docker exec "$1" ctr version
}
# refused TEXT COMMAND...: the command fails, and says so.
refused() {
	local said
	! said=$("${@:2}" 2>&1) || fail "done, and should not be: ${*:2}"
	[[ $said == *$1* ]] || fail "no '$1' in: $said"
}
# files NODE: those of a node, but for what containerd has in /var and /run.
files() {
	docker diff "$1" | grep -vE '^. /(root|var|run|tmp|etc|opt|etc/(cni|nri|containerd)|opt/(cni|containerd)|etc/(cni/net.d|containerd/config.toml)|opt/containerd/(bin|lib)|opt/cni/bin)$' || true
	docker exec "$1" cat /etc/containerd/config.toml
}
# client NODE ARGUMENTS...
client() { docker exec "$1" ctr "${@:2}" 2>>"$dir/log/ctr"; }
# runs NODE: a container in a VM.
runs() {
	client "$1" images import /root/busybox.tar >/dev/null
	image=$(client "$1" images ls -q | head -n 1)
	[ "$(client "$1" run --rm --runtime io.containerd.cc.v2 "$image" one sh -c 'echo in a VM')" = 'in a VM' ] || fail "nothing runs in $1"
}

# clients: with the bundle on the machine both find the shim, and no other file of ours.
clients() {
	local command
	"$ccv2" install -no-probe >/dev/null
	for command in docker nerdctl; do
		[ -x "$build/$command/$command" ] || continue
		[ "$("$command" run --rm --runtime io.containerd.cc.v2 "$image" uname -r)" = "$(guest)" ] || fail "$command runs nothing in a VM"
		"$command" run -d --runtime io.containerd.cc.v2 --name stays "$image" sleep 1000 >/dev/null
		for process in containerd-shim-ccv2 qemu-system-x86_64 virtiofsd; do
			uses "$process" || fail "$process of $command is not the bundle's"
		done
		refused 'end these pods first' ccv2 uninstall
		"$command" rm -f stays >/dev/null
	done
	ccv2 uninstall >/dev/null
	[ -z "$(find /opt/ccv2 /usr/local/bin/ccv2 /usr/local/bin/containerd-shim-cc-v2 /etc/ccv2 2>/dev/null)" ] || fail "files of the bundle are left"
}
# uses PROGRAM: a process of the bundle's runs, and none of another one.
uses() {
	local all
	all=$(for exe in /proc/[0-9]*/exe; do readlink "$exe" || true; done | grep -E "/(loader/)?$1\$" | sort -u)
	[[ -n $all && $all == /opt/ccv2/* && $all != *$'\n'* ]]
}
# guest: the release of the guest's kernel.
guest() { sed -n 's/.*"kernelVersion": "\(.*\)".*/\1/p' "$dir/bundle/share/ccv2/manifest.json"; }

inside() {
	build=$1 dir=$2
	# Not all of build/bin: the shim that was built is there.
	mkdir -p "$dir/log" "$dir/bin"
	for name in containerd ctr runc containerd-shim-runc-v2; do ln -s "$build/bin/$name" "$dir/bin/"; done
	export PATH=$dir/bin:$build/docker:$build/nerdctl:/usr/local/bin:$PATH
	ccv2=$dir/bundle/bin/ccv2
	containerd >"$dir/log/containerd" 2>&1 &
	await ctr version
	dockerd --containerd /run/containerd/containerd.sock --data-root "$dir/docker" --userland-proxy=false \
		>"$dir/log/dockerd" 2>&1 &
	await docker version
	docker load -qi "$build/busybox.tar" >/dev/null
	ctr images import "$build/busybox.tar" >/dev/null 2>>"$dir/log/ctr"
	image=$(ctr images ls -q 2>>"$dir/log/ctr" | head -n 1)
	clients

	image "$dir/node"
	tar -C "$dir/node" -c . | docker import - node >/dev/null
	node testing-control-plane control-plane
	node testing-worker worker
	cp=testing-control-plane
	files $cp >"$dir/before"

	refused 'no kind cluster "other"; it has testing' "$ccv2" install -kind other
	refused 'no node three, its nodes are testing-control-plane, testing-worker' "$ccv2" install -kind testing -nodes three
	docker stop -t 1 testing-worker >/dev/null
	refused 'testing-worker is exited; start it' "$ccv2" install -kind testing
	DOCKER_HOST=unix:///nothing refused 'name its socket in DOCKER_HOST' "$ccv2" install -kind testing
	docker run -d --name open --label io.x-k8s.kind.cluster=open --label io.x-k8s.kind.role=control-plane --network none node /bin/init >/dev/null
	refused 'open is a container without -privileged' "$ccv2" install -kind open
	"$ccv2" install -kind testing -nodes $cp -dry-run >"$dir/dry"
	grep -q '^testing-control-plane: +.*runtimes.ccv2' "$dir/dry" || fail "a dry run does not show the runtime"
	files $cp | cmp -s - "$dir/before" || fail "what did not install has changed files"

	"$ccv2" install -kind testing -nodes $cp -restart
	docker exec $cp grep -q 'memory: [1-9]' /var/runtimeclass || fail "the RuntimeClass is not applied"
	[ "$(docker exec $cp ls /var/nodes)" = $cp ] || fail "the label is missing"
	[ -z "$(docker exec $cp ls -d /.ccv2-bundle 2>/dev/null)" ] || fail "the copy of the bundle stays"
	runs $cp
	docker start testing-worker >/dev/null
	await docker exec testing-worker ctr version
	"$ccv2" upgrade -kind testing -nodes testing-worker -restart 2>"$dir/said" && fail "an upgrade of nothing"
	"$ccv2" install -kind testing -restart # once more where it is
	runs testing-worker
	[ "$(docker exec $cp ls /var/nodes)" = "$cp"$'\n'testing-worker ] || fail "the label is missing"

	client $cp run -d --runtime io.containerd.cc.v2 "$image" stays sleep 1000
	refused 'end these pods first' "$ccv2" uninstall -kind testing -nodes $cp
	docker exec $cp ls /var/nodes/$cp >/dev/null || fail "a node that keeps the runtime has lost its label"
	client $cp tasks kill -s KILL stays
	until client $cp tasks ls | grep -q STOPPED; do sleep 0.1; done
	client $cp tasks rm stays >/dev/null 2>&1 || true
	"$ccv2" uninstall -kind testing -nodes $cp
	docker exec $cp ls /var/runtimeclass >/dev/null || fail "the RuntimeClass is deleted before the last node has lost the runtime"
	files $cp | diff "$dir/before" - || fail "the node is not what it was"
	"$ccv2" uninstall -kind testing -nodes testing-worker -restart
	[ -z "$(docker exec $cp ls /var/nodes)" ] || fail "a label stays"
	docker exec $cp ls /var/runtimeclass >/dev/null 2>&1 && fail "the RuntimeClass stays"
	docker rm -f -v $cp testing-worker open >/dev/null
	echo "bundle-engine-test: passed"
}

if [ "${1:-}" = --inside ]; then
	inside "${@:2}"
	exit
fi
build=$(cd "${1:?usage: hack/bundle-engine-test.sh BUILD-DIR}" && pwd)
[ "$(id -u)" = 0 ] || {
	echo "bundle-engine-test: needs root" >&2
	exit 1
}
bundle=$(find "$build/dist" -name 'ccv2-*.tar.zst' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
dir=$(mktemp -d "${TMPDIR:-/tmp}/ccv2-kind-XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bundle"
zstd -qdc --long=27 "$bundle" | tar -C "$dir/bundle" --strip-components 1 -xf -
sh test/suites/machine.sh "$dir" "$PWD/hack/bundle-engine-test.sh" --inside "$build" "$dir"
