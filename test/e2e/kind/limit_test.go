//go:build kind

package kind_test

// limitRows give containers and pods less than all.
var limitRows = []row{
	{name: "OOMKilled", short: true, want: "OOMKilled 137\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "head -c 500000000 /dev/zero | tail"], resources: {limits: {memory: 64Mi}}}
		    - {name: other, image: "busybox:1.37", command: [sh, -c, "sleep 15; echo goes on"], resources: {limits: {memory: 32Mi}}}`, script: `
		apply; k wait --for='jsonpath={.status.containerStatuses[0].state.terminated.reason}' pod/a --timeout=100s >/dev/null
		ended a
		k get pod a -o 'jsonpath={range .status.containerStatuses[*]}{.name} {.state.terminated.reason} {.state.terminated.exitCode}{"\n"}{end}'
		state a
		k logs a -c other`},
	{name: "limits", want: "67108864\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) $(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us)"], resources: {limits: {memory: 64Mi, cpu: 500m}}}`, script: `
		apply && ended a
		k logs a
		k get pod a -o 'jsonpath={.status.qosClass}{"\n"}'`},
	{
		name: "number of CPUs", want: "a processor\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: one}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "nproc; grep -c ^processor /proc/cpuinfo; echo a processor"], resources: {limits: {cpu: 500m}}}]
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: two}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: a, image: "busybox:1.37", command: [nproc], resources: {limits: {cpu: 500m}}}
		    - {name: b, image: "busybox:1.37", command: [nproc], resources: {limits: {cpu: 1100m}}}`, script: `
		apply; ended one; ended two
		k logs one; k logs two -c a; k logs two -c b`,
		differs: "a VM has the processors of its pod's limits, not all of the node", wantVM: "1\n1\na processor\n2\n2\n",
	},
	{name: "QoS classes", want: "Guaranteed Burstable BestEffort", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: g}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers: [{name: main, image: "busybox:1.37", command: [cat, /proc/self/oom_score_adj], resources: {limits: {memory: 64Mi, cpu: 500m}}}]
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: b}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers: [{name: main, image: "busybox:1.37", command: [cat, /proc/self/oom_score_adj], resources: {requests: {memory: 64Mi}}}]
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: e}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers: [{name: main, image: "busybox:1.37", command: [cat, /proc/self/oom_score_adj]}]`, script: `
		apply; ended g; ended b; ended e
		echo $(k get pod g b e -o 'jsonpath={.items[*].status.qosClass}')
		k logs e`},
	{name: "LimitRange and ResourceQuota", want: "exceeded quota", manifest: `
		apiVersion: v1
		kind: LimitRange
		metadata: {name: l}
		spec: {limits: [{type: Container, default: {cpu: 500m, memory: 48Mi}, defaultRequest: {cpu: 50m, memory: 48Mi}}]}
		---
		apiVersion: v1
		kind: ResourceQuota
		metadata: {name: q}
		spec: {hard: {pods: "1"}}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]`, script: `
		await default k get serviceaccount; apply && ready a
		k get pod a -o 'jsonpath={.spec.containers[0].resources.limits.memory}{"\n"}'
		k run b --image=busybox:1.37 2>&1 | grep -o 'exceeded quota' | head -n 1`},
	{name: "pod-level resources", want: "33554432", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  resources: {limits: {cpu: 500m, memory: 64Mi}}
		  containers:
		    - {name: one, image: "busybox:1.37", command: [sh, -c, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"], resources: {limits: {memory: 32Mi}}}
		    - {name: two, image: "busybox:1.37", command: [sh, -c, "head -c 500000000 /dev/zero | tail"]}`, script: `
		apply && ended a
		k logs a -c one
		state a 1`},
	{name: "resize in place", want: "100663296", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"], resources: {requests: {memory: 32Mi, cpu: 100m}, limits: {memory: 64Mi, cpu: 500m}}}]`, script: `
		apply && ready a
		k patch pod a --subresource=resize -p '{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"96Mi","cpu":"800m"}}}]}}'
		await 96Mi k get pod a -o 'jsonpath={.status.containerStatuses[0].resources.limits.memory}'
		k exec a -- sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null'`},
}
