//go:build kind

package kind_test

// processRows look into a running container.
var processRows = []row{
	{name: "exec", short: true, want: "out\n[7]", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - {name: one, image: "busybox:1.37", command: [sleep, "1000000"], env: [{name: A, value: one}]}
		    - {name: two, image: "busybox:1.37", command: [sleep, "1000000"], env: [{name: A, value: two}]}`, script: `
		apply && ready a
		k exec a -c one -- sh -c 'echo out; exit 7' 2>/dev/null
		k exec a -c two -- sh -c 'echo $A'
		echo from outside | k exec -i a -c one -- cat
		head -c 3000000 /dev/zero | k exec -i a -c one -- wc -c
		k exec a -c one -- sh -c 'head -c 3000000 /dev/zero' | wc -c
		k exec a -c one -- nosuch 2>&1 | grep -o 'executable file not found in $PATH' | head -n 1
		k exec a -c one -- ls /proc/1/exe
		k exec a -c one -- sh -c 'kill -TERM $$' 2>/dev/null
		k exec a -c one -- sh -c 'tty; cat'`},
	{name: "attach", want: "got hello", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", stdin: true, stdinOnce: true, command: [sh, -c, "read x; echo got $x; exit 3"]}`, script: `
		apply && ready a
		echo hello | timeout 60 kubectl -n $ns attach -i a 2>/dev/null
		ended a
		k logs a
		state a`},
	{name: "run -i", want: "5\n", script: `
		(seq 5; sleep 1) | timeout 100 kubectl -n $ns run -i --rm --restart=Never --image=busybox:1.37 --overrides='{"spec":{'"$([ $runtime = runc ] || echo '"runtimeClassName":"ccv2"')"'}}' once -- wc -l 2>/dev/null | head -n 1`},
	{name: "logs", short: true, want: "line 3", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  terminationGracePeriodSeconds: 1
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "echo err >&2; sleep 1; for i in 1 2 3; do echo line $i; done; sleep 2; [ -e /data/again ] && exec sleep 1000000; touch /data/again; exit 5"],
		       volumeMounts: [{name: data, mountPath: /data}]}
		  volumes: [{name: data, emptyDir: {}}]`, script: `
		apply
		timeout 60 kubectl -n $ns logs a -f --pod-running-timeout=60s 2>/dev/null | sort
		await '^1$' k get pod a -o 'jsonpath={.status.containerStatuses[0].restartCount}'
		await 'line 3' k logs a
		k logs a --previous | sort
		k logs a --timestamps --tail=1 | sed 's/ .*//'
		k logs a --since=1h --tail=2 | wc -l
		k logs a --limit-bytes=4
		k get pod a -o 'jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}{"\n"}'`},
	{name: "large logs", want: "no newline", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "seq 100001 241271; printf 'no newline'"]}`, script: `
		apply && ended a
		k logs a | wc -c
		k logs a | tail -n 1
		k logs a | sort -c 2>&1 | head -n 1 | grep -o disorder`},
	{name: "cp", short: true, want: "same\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sleep, "1000000"]}`, script: `
		apply && ready a
		mkdir tree && head -c 2000000 /dev/urandom >tree/large && echo text >tree/small && ln -s small tree/link
		k cp tree a:/tmp/tree
		k exec a -- ls /tmp/tree
		k cp a:/tmp/tree/large back 2>/dev/null
		cmp back tree/large && echo same`},
	{name: "port-forward", want: "to 80 of the pod", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "echo to 80 of the pod >/tmp/index.html; httpd -h /tmp -p '[::1]:81'; exec httpd -f -h /tmp"]}`, script: `
		apply && ready a
		forward a :80 :81 :82
		await 'to 80' wget -q -T 20 -O - http://127.0.0.1:$(port 80)/
		wget -q -T 20 -O - http://127.0.0.1:$(port 80)/
		wget -q -T 20 -O - http://127.0.0.1:$(port 81)/
		wget -q -T 20 -t 1 -O - http://127.0.0.1:$(port 82)/ 2>/dev/null`},
	{name: "debug a node's pod by copy", want: "copied\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - {name: main, image: "busybox:1.37", command: ["false"]}`, script: `
		apply
		k debug a --copy-to=b --container=main -- sh -c 'echo copied; exec sleep 1000000' >/dev/null 2>&1
		ready b
		k logs b
		k get pod b -o 'jsonpath={.spec.runtimeClassName}' | sed s/ccv2//`},
}
