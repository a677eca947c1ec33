//go:build kind

package kind_test

// nodeRows do to a node what its operators do.
var nodeRows = []row{
	{name: "kubelet and containerd restarted", want: "goes on\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "i=0; while :; do i=$((i+1)); echo $i; sleep 1; done"]}]`, script: `
		apply && ready a
		token() { k exec a -- cat /var/run/secrets/kubernetes.io/serviceaccount/token; }; token >token
		on ccv2-worker systemctl restart containerd
		await 'goes on' k exec a -- echo goes on; k exec a -- echo goes on
		on ccv2-worker systemctl restart kubelet
		k wait --for=condition=Ready node/ccv2-worker --timeout=60s; await 'goes on' k exec a -- echo goes on
		timeout 20 kubectl -n $ns logs -f a --tail=1 | head -n 3 | wc -l
		rotated() { token >other && ! cmp -s token other && echo the token is another one; }; k annotate pod a again=1 >/dev/null; await another rotated && rotated
		k get pod a -o 'jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}{"\n"}'
		k delete pod a --grace-period=1 --timeout=60s`},
	{name: "summary of a node", want: "true true true eth0\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "head -c 30000000 /dev/urandom >/dev/shm/x; while :; do :; done"], resources: {limits: {cpu: 300m, memory: 96Mi}}}]`, script: `
		apply && ready a
		summary() { kubectl get --raw /api/v1/nodes/ccv2-worker/proxy/stats/summary | jq -r --arg ns $ns '.pods[] | select(.podRef.namespace==$ns) | "\(.containers[0].cpu.usageNanoCores>50000000) \(.containers[0].memory.workingSetBytes>30000000) \(.network.rxBytes>0) \([.network.interfaces[].name] | join(" "))"'; }
		await 'true true true eth0' summary; summary`},
	{name: "kubectl top", want: "has both\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "head -c 20000000 /dev/urandom >/dev/shm/x; while :; do :; done"], resources: {limits: {cpu: 300m, memory: 96Mi}}}]`, script: `
		apply && ready a
		await '^a  *[1-9][0-9]*m  *[1-9][0-9]*Mi' kubectl -n $ns top pod a --no-headers && echo has both`},
	{name: "events that name the cause", only: true, want: "vmlinux does not exist", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]`, script: `
		on ccv2-worker sh -c 'f=/opt/ccv2/current/share/ccv2; mv $f $f.away'
		apply; await kernel k get events --field-selector reason=FailedCreatePodSandBox -o 'jsonpath={.items[0].message}'
		k get events --field-selector reason=FailedCreatePodSandBox -o 'jsonpath={.items[0].message}{"\n"}'
		on ccv2-worker sh -c 'f=/opt/ccv2/current/share/ccv2; mv $f.away $f'
		ready a`},
	{name: "runtime cut out of the configuration", only: true, want: "runs there\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker2
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]`, script: `
		on ccv2-worker2 sed -i '/^# BEGIN ccv2/,/^# END ccv2/d' /etc/containerd/config.toml; on ccv2-worker2 grep -c ccv2 /etc/containerd/config.toml
		await 'has lost the runtime' kubectl -n ccv2 logs daemonset/ccv2 && await 'BEGIN ccv2' on ccv2-worker2 cat /etc/containerd/config.toml
		await true kubectl get node ccv2-worker2 -o 'jsonpath={.metadata.labels.ccv2\.io/runtime}' && kubectl -n ccv2 rollout status daemonset/ccv2 --timeout=100s >/dev/null
		apply && ready a; k exec a -- echo runs there`},
	{name: "eviction for want of memory", want: "low on resource: memory\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  terminationGracePeriodSeconds: 1
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "head -c 60000000 /dev/urandom >/dev/shm/x; exec sleep 1000000"], resources: {requests: {memory: 1Mi}}}] # one without would not be taken up again`, script: `
		apply && ready a
		on ccv2-worker sh -c 'cd /var/lib/kubelet; cp config.yaml before.yaml; printf "evictionSoft: {memory.available: 99%%}\\nevictionSoftGracePeriod: {memory.available: 1s}\\n" >>config.yaml; systemctl restart kubelet'
		k wait --for=jsonpath='{.status.reason}'=Evicted pod/a --timeout=150s >/dev/null
		on ccv2-worker sh -c 'cd /var/lib/kubelet; mv before.yaml config.yaml; systemctl restart kubelet'
		phase a; k get pod a -o 'jsonpath={.status.message}{"\n"}' | grep -o 'low on resource: memory'
		kubectl wait --for=condition=MemoryPressure=false node/ccv2-worker --timeout=100s >/dev/null && kubectl wait --for=condition=Ready node/ccv2-worker --timeout=100s >/dev/null && echo goes on`},
	{name: "node drained", want: "moved\n", manifest: `
		apiVersion: apps/v1
		kind: Deployment
		metadata: {name: d}
		spec:
		  selector: {matchLabels: {app: d}}
		  template:
		    metadata: {labels: {app: d}}
		    spec:
		      runtimeClassName: ccv2
		      nodeSelector: {kubernetes.io/hostname: ccv2-worker}
		      terminationGracePeriodSeconds: 1
		      containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]`, script: `
		apply; k rollout status deployment/d --timeout=100s | tail -n 1
		kubectl drain ccv2-worker --ignore-daemonsets --delete-emptydir-data --force --timeout=100s 2>/dev/null | grep -c "^pod/d-.* evicted"
		await Pending k get pods -l app=d && echo moved
		kubectl uncordon ccv2-worker
		k rollout status deployment/d --timeout=100s | tail -n 1`},
	{name: "node rebooted", want: "running again\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "echo start >>/v/log; exec sleep 1000000"], volumeMounts: [{name: v, mountPath: /v}]}]
		  volumes: [{name: v, hostPath: {path: /var/tmp/reboot, type: DirectoryOrCreate}}]`, script: `
		apply && ready a
		docker restart -t 20 ccv2-worker >/dev/null
		await '^2$' sh -c 'docker exec ccv2-worker grep -c start /var/tmp/reboot/log'
		ready a; k exec a -- echo running again
		k delete pod a --grace-period=1 --timeout=60s >/dev/null; on ccv2-worker rm -r /var/tmp/reboot`},
}
