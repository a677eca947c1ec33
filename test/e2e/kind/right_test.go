//go:build kind

package kind_test

// rightRows take rights from containers, or give them some.
var rightRows = []row{
	{name: "security context", short: true, want: "uid=1000 gid=3000 groups=2000,3000,4000", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000], seccompProfile: {type: RuntimeDefault}}
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "exec 2>&1; id; touch /x; touch /v/x && stat -c '%u %g' /v/x; grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status; unshare -U true; echo $?"]
		      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}
		      volumeMounts: [{name: v, mountPath: /v}]
		  volumes: [{name: v, emptyDir: {}}]`, script: `
		apply && ended a
		k logs a`},
	{name: "restricted", want: "violates PodSecurity", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [id, -u]
		      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}`, script: `
		kubectl label namespace $ns pod-security.kubernetes.io/enforce=restricted >/dev/null
		apply && ended a
		k logs a
		k run b --image=busybox:1.37 2>&1 | grep -o 'violates PodSecurity' | head -n 1`},
	{name: "runAsNonRoot refused", want: "CreateContainerConfigError", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  securityContext: {runAsNonRoot: true}
		  containers: [{name: main, image: "busybox:1.37", command: [id]}]`, script: `
		apply; await CreateContainerConfigError k get pod a
		k get pod a -o 'jsonpath={.status.containerStatuses[0].state.waiting.reason}{"\n"}'`},
	{name: "privileged", want: "mounted\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "exec 2>&1; mount -t tmpfs tmpfs /tmp && echo mounted; ip link add br9 type bridge && echo bridge; sysctl -w net.ipv4.ip_forward=1; ls -d /dev/null /dev/kmsg"]
		      securityContext: {privileged: true}`, script: `
		apply && ended a
		k logs a`},
	{name: "sysctls", want: "net.ipv4.ip_unprivileged_port_start = 80\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: "80"}, {name: kernel.shm_rmid_forced, value: "1"}]}
		  containers: [{name: main, image: "busybox:1.37", command: [sysctl, net.ipv4.ip_unprivileged_port_start, kernel.shm_rmid_forced]}]`, script: `
		apply && ended a
		k logs a`},
	{name: "user namespace", want: "root\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  hostUsers: false
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "whoami; awk '{print $1, ($2 > 0), $3}' /proc/self/uid_map; touch /v/x && stat -c %u /v/x"]
		      volumeMounts: [{name: v, mountPath: /v}]
		  volumes: [{name: v, emptyDir: {}}]`, script: `
		apply && ended a
		k logs a`},
	{name: "seccomp localhost", want: "1\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  nodeName: ccv2-worker
		  securityContext: {seccompProfile: {type: Localhost, localhostProfile: row.json}}
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "mkdir /tmp/x 2>&1; echo $?"]}]`, script: `
		on ccv2-worker sh -c 'mkdir -p /var/lib/kubelet/seccomp && echo "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\",\"mkdirat\"],\"action\":\"SCMP_ACT_ERRNO\"}]}" >/var/lib/kubelet/seccomp/row.json'
		apply && ended a
		k logs a
		on ccv2-worker rm /var/lib/kubelet/seccomp/row.json`},
}
