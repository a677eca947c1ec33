#!/bin/bash
# A cluster of kind with ccv2, for tests and to try it. It is made with the Engine that
# is there (DOCKER_HOST, or the one that docker finds), else with one of its own, which
# lives in namespaces of its own with all that it makes.
#
# usage: hack/kind.sh up BUILD-DIR               the Engine, the cluster, ccv2 on its workers
#        hack/kind.sh run BUILD-DIR COMMAND...   a command with docker, kind and kubectl for it
#        hack/kind.sh down BUILD-DIR             deletes all of it, and says what is left
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
command=${1:?usage: hack/kind.sh up|run|down BUILD-DIR}
build=$(cd "${2:?usage: hack/kind.sh $command BUILD-DIR}" && pwd)
shift 2
dir=$build/kind
cluster=${CCV2_KIND_CLUSTER:-ccv2}
state=$dir/$cluster
own=$state/machine # its first process's pid, if the Engine is ours
export PATH=$dir/bin:$build/docker:$PATH KUBECONFIG=$state/kubeconfig
die() {
	echo "kind: $*" >&2
	exit 1
}

# ours runs a command where our own Engine is, and any other's here.
ours() {
	if [ -e "$own" ]; then
		DOCKER_HOST=unix:///run/docker.sock nsenter --target "$(cat "$own")" --mount --net --pid --ipc --cgroup --wdns="$PWD" "$@"
	else
		"$@"
	fi
}

# engine is the first process of the machine: it starts dockerd, and ends with it.
engine() {
	data=$dir/engine
	mkdir -p "$data" /run/ccv2-kind
	printf 'version = 3\nroot = "%s/containerd"\nstate = "/run/ccv2-kind/containerd"\ndisabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "/run/ccv2-kind/containerd.sock"\n' \
		"$data" >/run/ccv2-kind/containerd.toml
	echo 1 >/proc/sys/net/ipv4/ip_forward
	export PATH=$build/bin:$PATH
	containerd --config /run/ccv2-kind/containerd.toml >"$state/containerd.log" 2>&1 &
	until [ -S /run/ccv2-kind/containerd.sock ]; do
		kill -0 $! || exit 1
		sleep 0.1
	done
	dockerd --containerd /run/ccv2-kind/containerd.sock --data-root "$data/docker" --exec-root /run/ccv2-kind/docker \
		--host unix:///run/docker.sock --pidfile /run/docker.pid --userland-proxy=false >"$state/dockerd.log" 2>&1
}

# start_engine returns once it answers.
start_engine() {
	[ "$(id -u)" = 0 ] || die "no Docker Engine is there (DOCKER_HOST), and one of our own needs root"
	local scratch
	scratch=$(mktemp -d "${TMPDIR:-/tmp}/ccv2-kind-XXXXXX")
	echo "$scratch" >"$state/scratch"
	setsid nohup sh "$here/test/suites/machine.sh" "$scratch" "$here/hack/kind.sh" engine "$build" </dev/null >"$state/machine.log" 2>&1 &
	echo $! >"$state/outer"
	local tries=0 init
	until init=$(first "$(cat "$state/outer")") && echo "$init" >"$own" && ours docker info >/dev/null 2>&1; do
		if [ $((tries += 1)) -gt 300 ] || ! kill -0 "$(cat "$state/outer")" 2>/dev/null; then
			tail -n 20 "$state"/{machine,containerd,dockerd}.log >&2 || true
			kill -KILL "$init" "$(cat "$state/outer")" 2>/dev/null || true
			rm -rf "$(cat "$state/scratch")" "$state"
			trap - EXIT
			die "the Engine does not answer"
		fi
		sleep 0.2
	done
}

# first finds the first process of the namespaces that a process's descendants are in.
first() {
	local pid=$1 child
	while :; do
		child=$(pgrep -o -P "$pid") || return
		[ "$(sed -n 's/^NSpid:.*\t//p' "/proc/$child/status")" = 1 ] && [ "$child" != 1 ] && {
			echo "$child"
			return
		}
		pid=$child
	done
}

stop_engine() {
	local tries=0
	# shellcheck disable=SC2016 # for the shell in the machine
	ours sh -c 'kill "$(cat /run/docker.pid)"' # the machine ends with it
	while kill -0 "$(cat "$state/outer")" 2>/dev/null; do
		[ $((tries += 1)) -ne 150 ] || kill -KILL "$(cat "$own")" # its first process, and with that all of it
		[ $tries -lt 300 ] || die "the Engine's machine does not end"
		sleep 0.2
	done
	rm -rf "$(cat "$state/scratch")" "$own" "$state/outer" "$state/scratch"
}

# configuration of the cluster; cgroups v1 and a machine without the right to lower a
# process's score for the killer of the kernel need words of their own.
configuration() {
	cat <<-END
		kind: Cluster
		apiVersion: kind.x-k8s.io/v1alpha4
		nodes:
		  - role: control-plane
		  - role: worker
		  - role: worker
		networking:
		  ipFamily: dual
		  disableDefaultCNI: true # its image is in no module; see below
		kubeadmConfigPatches:
		  - |
		    kind: KubeletConfiguration
		    failCgroupV1: false
		    evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%, imagefs.inodesFree: 1%}
		    imageGCHighThresholdPercent: 100
		containerdConfigPatches:
		  - |
		    [plugins."io.containerd.grpc.v1.cri"]
		      restrict_oom_score_adj = true
	END
}

# network does what kind's own plugin does: a bridge for the pods of each node, and
# routes to those of the others.
network() {
	local nodes node other cidr cidr6 address address6
	nodes=$(ours kubectl get nodes -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDRs[*]} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}')
	while read -r node cidr cidr6 _; do
		ours docker exec -i "$node" sh -c 'cat >/etc/cni/net.d/10-bridge.conflist' <<-END
			{"cniVersion": "1.0.0", "name": "bridge", "plugins": [
			  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
			   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$cidr"}], [{"subnet": "$cidr6"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
			  {"type": "portmap", "capabilities": {"portMappings": true}}]}
		END
		{
			printf '[Service]\nType=oneshot\n'
			while read -r other cidr cidr6 address address6; do
				[ "$node" = "$other" ] || printf 'ExecStart=/sbin/ip route replace %s via %s\n' "$cidr" "$address" "$cidr6" "$address6"
			done <<<"$nodes"
			printf '[Install]\nWantedBy=multi-user.target\n'
		} | ours docker exec -i "$node" sh -c 'cat >/etc/systemd/system/routes.service'
		ours docker exec "$node" systemctl -q enable --now routes.service # again, when the node is started again
	done <<<"$nodes"
}

# install puts the bundle on one worker from outside, as somebody does who tries it, and
# has the DaemonSet put it on the other.
install() {
	local bundle=$dir/dist/ccv2-e2e-linux-amd64
	[ -e "$bundle.tar" ] || die "no bundle in $dir/dist; run make e2e-kind"
	tar -C "$state" -xf "$bundle.tar"
	ours "$state/ccv2-e2e-linux-amd64/bin/ccv2" install -kind "$cluster" -nodes "$cluster-worker" -restart
	ours kind load image-archive "$bundle.oci.tar" --name "$cluster" --nodes "$cluster-worker2"
	cat >"$state/ccv2-e2e-linux-amd64/deploy/kustomization.yaml" <<-END
		apiVersion: kustomize.config.k8s.io/v1beta1
		kind: Kustomization
		resources: [restart]
		patches:
		  - target: {kind: DaemonSet}
		    patch: '[{"op": "add", "path": "/spec/template/spec/nodeSelector/kubernetes.io~1hostname", "value": "$cluster-worker2"}]'
	END
	ours kubectl apply -k "$state/ccv2-e2e-linux-amd64/deploy"
	ours kubectl -n ccv2 rollout status daemonset/ccv2 --timeout=5m
}

# metrics is what kubectl top asks, which no cluster of kind has by itself.
metrics() {
	cp -r --no-preserve=mode "$(go -C "$here/tools/kind" list -m -f '{{.Dir}}' sigs.k8s.io/metrics-server)/manifests/base" "$state/metrics-server"
	cat >>"$state/metrics-server/kustomization.yaml" <<-END

		images: [{name: gcr.io/k8s-staging-metrics-server/metrics-server, newName: registry.k8s.io/metrics-server/metrics-server, newTag: v0.9.0}]
		patches:
		  - target: {kind: Deployment}
		    patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]'
	END
	ours kubectl apply -k "$state/metrics-server" 2>/dev/null # an old word of it is deprecated
}

# left prints what the cluster has left behind, if anything.
left() {
	docker ps -aq --filter "label=io.x-k8s.kind.cluster=$cluster" | sed 's/^/container /'
	[ -e /run/docker.sock ] && [ -e "$own" ] || return 0
	# In the machine there is nothing else but the Engine.
	docker network ls -q --filter type=custom | sed 's/^/network /'
	docker volume ls -q | sed 's/^/volume /'
	ps -e -o pid=,comm= | awk '$2 !~ /^(sh|bash|kind.sh|setpriv|unshare|containerd|dockerd|ps|awk|sed)$/ {print "process", $0}'
	ip -o link | awk -F': ' '$2 !~ /^(lo|docker0)$/ {print "link", $2}'
	awk -v dir="$dir" '$5 ~ "^/run/ccv2-kind/.*/" || ($5 ~ "^" dir && $5 !~ "engine/docker$") {print "mount", $5}' /proc/self/mountinfo
	find /sys/fs/cgroup -mindepth 2 -type d \( -name 'kubepods*' -o -name kubelet -o -path '*/docker/*' \) | sed 's/^/cgroup /'
	losetup -n -O BACK-FILE -l | grep "$dir" | sed 's/^/loop device of /' || true
}

complete=
up() {
	[ ! -e "$state" ] || die "$state is there: run hack/kind.sh down $build first"
	mkdir -p "$state"
	trap '[ -n "$complete" ] || down' EXIT
	unset HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy # nothing is downloaded, and nodes would get them
	if [ -z "${DOCKER_HOST:-}" ] && ! docker info >/dev/null 2>&1; then
		start_engine
	fi
	local node
	node=$(cat "$dir/node")
	ours docker image inspect "ccv2.test/kind:$node" >/dev/null 2>&1 ||
		ours docker import -c 'ENV container=docker' -c 'STOPSIGNAL SIGRTMIN+3' -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
			"$dir/$node.tar" "ccv2.test/kind:$node" >/dev/null
	# shellcheck disable=SC2046 # no name has a space
	ours docker image rm $(ours docker image ls --format '{{.Repository}}:{{.Tag}}' ccv2.test/kind | grep -v ":$node\$") >/dev/null 2>&1 || true # older ones
	configuration >"$state/cluster.yaml"
	ours kind create cluster --name "$cluster" --config "$state/cluster.yaml" --image "ccv2.test/kind:$node" --kubeconfig "$KUBECONFIG" --retain
	network
	install
	metrics
	ours kubectl wait --for=condition=Ready node --all --timeout=5m
	complete=yes
}

down() {
	local found
	ours kind delete cluster --name "$cluster"
	if [ -e "$own" ]; then
		ours docker network rm -f kind >/dev/null
	fi
	found=$(ours "$0" left "$build")
	if [ -e "$own" ]; then
		stop_engine
		found=$found$(find /sys/fs/cgroup -maxdepth 2 -name 'ccv2-kind-*' | sed 's/^/cgroup /')
	fi
	mkdir -p "$dir/logs"
	mv "$state"/*.log "$dir/logs/" 2>/dev/null || true # of our own Engine, if it was ours
	rm -rf "$state"
	[ -z "$found" ] || die "left behind:
$found"
}

case $command in
engine | left) $command ;; # in the machine
up | down) "$command" ;;
run) ours "$@" ;;
*) die "unknown command $command" ;;
esac
