//go:build kind

package kind_test

// lifecycleRows begin and end.
var lifecycleRows = []row{
	{name: "termination", short: true, want: "preStop then TERM", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  terminationGracePeriodSeconds: 30
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "trap 'echo then TERM >>/v/log; exit 0' TERM; sleep 1000000 & wait"]
		      lifecycle:
		        postStart: {exec: {command: [sh, -c, "echo postStart >/v/log"]}}
		        preStop: {exec: {command: [sh, -c, "printf 'preStop ' >>/v/log; sleep 1"]}}
		      volumeMounts: [{name: v, mountPath: /v}]
		  volumes: [{name: v, hostPath: {path: /var/tmp/termination, type: DirectoryOrCreate}}]`, script: `
		apply && ready a
		k delete pod a --timeout=60s
		on ccv2-worker cat /var/tmp/termination/log; on ccv2-worker rm -r /var/tmp/termination`},
	{name: "preStop of other kinds", want: "url:/pre", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  terminationGracePeriodSeconds: 30
		  containers:
		    - name: http
		      image: busybox:1.37
		      command: [sh, -c, "trap 'exit 0' TERM; touch /tmp/ready; httpd -f -vv -p 8080 -h /tmp 2>/v/log & wait"]
		      readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
		      lifecycle: {preStop: {httpGet: {path: /pre, port: 8080}}}
		      volumeMounts: [{name: v, mountPath: /v}]
		    - name: sleep
		      image: busybox:1.37
		      command: [sh, -c, "trap 'exit 0' TERM; sleep 1000000 & wait"]
		      lifecycle: {preStop: {sleep: {seconds: 2}}}
		  volumes: [{name: v, hostPath: {path: /var/tmp/prestop, type: DirectoryOrCreate}}]`, script: `
		apply && ready a
		k delete pod a --timeout=60s
		on ccv2-worker grep -o 'url:/pre' /var/tmp/prestop/log; on ccv2-worker rm -r /var/tmp/prestop`},
	{name: "termination message", want: "the reason", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  securityContext: {runAsUser: 1000}
		  containers:
		    - {name: file, image: "busybox:1.37", command: [sh, -c, "echo the reason >/dev/termination-log; exit 1"]}
		    - {name: log, image: "busybox:1.37", command: [sh, -c, "echo the last line; exit 2"], terminationMessagePolicy: FallbackToLogsOnError}`, script: `
		apply && ended a
		k get pod a -o 'jsonpath={range .status.containerStatuses[*]}{.state.terminated.exitCode} {.state.terminated.message}{end}'`},
	{name: "init containers", want: "one two main", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: OnFailure
		  initContainers:
		    - {name: one, image: "busybox:1.37", command: [sh, -c, "printf 'one ' >>/v/log"], volumeMounts: &m [{name: v, mountPath: /v}]}
		    - {name: two, image: "busybox:1.37", command: [sh, -c, "[ -e /v/again ] || { touch /v/again; exit 1; }; printf 'two ' >>/v/log"], volumeMounts: *m}
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "echo $(cat /v/log)main"], volumeMounts: *m}]
		  volumes: [{name: v, emptyDir: {}}]`, script: `
		apply && ended a
		k logs a
		k get pod a -o 'jsonpath={.status.initContainerStatuses[1].restartCount}{"\n"}'`},
	{name: "shared process namespace", want: "sleep 1000001", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  shareProcessNamespace: true
		  terminationGracePeriodSeconds: 1
		  containers:
		    - {name: one, image: "busybox:1.37", command: [sleep, "1000001"]}
		    - {name: two, image: "busybox:1.37", command: [sleep, "1000002"]}`, script: `
		apply && ready a
		k exec a -c two -- ps -o pid,args | grep -E 'pause|sleep' | grep -v grep | awk '{print ($1 == 1), $2, $3}' | sort
		k exec a -c two -- sh -c 'pkill -KILL -f "[s]leep 1000001"'
		await '^1 0$' k get pod a -o 'jsonpath={.status.containerStatuses[*].restartCount}'
		ready a
		k get pod a -o 'jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}{"\n"}'`},
	{name: "kill of all processes", want: "137\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]}]`, script: `
		apply && ready a
		k exec a -- kill -9 -1 2>/dev/null
		k get pod a -o 'jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}{"\n"}'
		k exec a -- sh -c 'kill -TERM 1; echo still here'
		k delete pod a --grace-period=1 --timeout=60s; echo 137`},
	{name: "pod deleted while it starts", want: "gone 8\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  terminationGracePeriodSeconds: 1
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]`, script: `
		n=0; for wait in 0 0.2 0.5 0.8 1.2 1.6 2.2 3; do apply; sleep $wait; k delete pod a --timeout=60s >/dev/null && n=$((n + 1)); done; echo gone $n`},
	{name: "liveness by http and tcp", want: "1 1\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  terminationGracePeriodSeconds: 1
		  containers:
		    - name: http
		      image: busybox:1.37
		      command: [sh, -c, "touch /tmp/live; exec httpd -f -p 8080 -h /tmp"]
		      startupProbe: {exec: {command: [test, -e, /tmp/live]}, periodSeconds: 1, timeoutSeconds: 10}
		      livenessProbe: {httpGet: {path: /live, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
		    - name: tcp
		      image: busybox:1.37
		      command: [sh, -c, "httpd -p 9090 -h /tmp; exec sleep 1000000"]
		      startupProbe: {tcpSocket: {port: 9090}, periodSeconds: 1, timeoutSeconds: 10}
		      livenessProbe: {tcpSocket: {port: 9090}, periodSeconds: 1, timeoutSeconds: 10}`, script: `
		apply && ready a
		k get pod a -o 'jsonpath={.status.containerStatuses[*].restartCount}{"\n"}'
		k exec a -c http -- rm /tmp/live; k exec a -c tcp -- pkill httpd
		await '^1 1$' k get pod a -o 'jsonpath={.status.containerStatuses[*].restartCount}'
		ready a; k get pod a -o 'jsonpath={.status.containerStatuses[*].restartCount}{"\n"}'
		k get events --field-selector reason=Unhealthy -o 'jsonpath={range .items[*]}{.message}{"\n"}{end}' | grep -o 'HTTP probe failed with statuscode: 404' | head -n 1`},
	{name: "grpc probe", want: "1\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  terminationGracePeriodSeconds: 1
		  containers:
		    - name: main
		      image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
		      command: [agnhost, grpc-health-checking, --port=5000, --http-port=8080]
		      readinessProbe: {grpc: {port: 5000}, periodSeconds: 1, timeoutSeconds: 10}
		      livenessProbe: {grpc: {port: 5000}, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 10}`, script: `
		apply && ready a
		forward a :8080
		wget -q -T 20 -O /dev/null http://127.0.0.1:$(port 8080)/make-not-serving
		await '^1$' k get pod a -o 'jsonpath={.status.containerStatuses[0].restartCount}'
		k get pod a -o 'jsonpath={.status.containerStatuses[0].restartCount}{"\n"}'`},
	{name: "program that is not there", want: "executable file not found", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [nosuch]}]`, script: `
		apply; await 'RunContainerError\|CrashLoop' k get pod a
		k get events --field-selector involvedObject.name=a,reason=Failed -o 'jsonpath={.items[0].message}' | grep -o 'executable file not found in $PATH' | head -n 1`},
}
