//go:build kind

package kind_test

// exampleRows apply what is in deploy/examples.
var exampleRows = []row{
	{name: "example pod", short: true, want: "hello from hello", script: `
		apply $examples/pod.yaml
		ready hello
		await hello k logs hello; k logs hello
		k exec hello -- uname -s
		[ $runtime = runc ] || [ "$(k exec hello -- uname -r)" != "$(uname -r)" ]`},
	{name: "example deployment", short: true, want: "2 servers", script: `
		apply $examples/deployment.yaml
		k rollout status deployment/web --timeout=150s | tail -n 1
		apply $examples/pod.yaml; ready hello
		k exec hello -- sh -c 'for i in $(seq 20); do wget -q -O - http://web/; done' | sort -u >names
		k get pods -l app=web -o name | sed 's/.*\///' | sort | diff - names
		echo $(wc -l <names) servers`},
	{name: "example job", short: true, want: "4\n", script: `
		apply $examples/job.yaml
		k wait --for=condition=Complete job/squares --timeout=150s
		k logs -l job-name=squares --tail=-1 | sort -n
		k get pods -l job-name=squares -o 'jsonpath={range .items[*]}{.status.phase}{"\n"}{end}'`},
	{name: "example statefulset", want: "start\nstart\n", script: `
		apply $examples/statefulset.yaml
		k rollout status statefulset/counter --timeout=150s | tail -n 1
		k exec counter-0 -- cat /data/starts
		k delete pod counter-0
		k rollout status statefulset/counter --timeout=150s | tail -n 1; ready counter-0
		k exec counter-0 -- wget -q -O - http://counter-0.counter:8080/starts`},
	{name: "example probes", want: "probes 1\n", script: `
		apply $examples/probes.yaml
		ready probes
		k exec probes -- rm /tmp/live
		await '^1$' k get pod probes -o 'jsonpath={.status.containerStatuses[0].restartCount}'
		ready probes
		k get pod probes -o 'jsonpath={.metadata.name} {.status.containerStatuses[0].restartCount}{"\n"}'
		k get events --field-selector reason=Unhealthy -o 'jsonpath={range .items[*]}{.message}{"\n"}{end}' | grep Liveness | tail -n 1`},
	{name: "example sidecar", short: true, want: "line 3\n", script: `
		apply $examples/sidecar.yaml
		ended sidecar
		k logs sidecar -c shipper
		k get pod sidecar -o 'jsonpath={.status.initContainerStatuses[0].state.terminated.exitCode}{"\n"}'`},
	{name: "example port-forward", short: true, want: "hello from the loopback", script: `
		apply $examples/port-forward.yaml
		ready local
		forward local :8080
		wget -q -T 20 -O - http://127.0.0.1:$(port 8080)/
		wget -q -T 20 -O - "http://[::1]:$(port 8080)/"`},
	{name: "example debug", short: true, want: "sleep 1000000", script: `
		apply $examples/debug.yaml
		ready quiet
		k debug quiet --image=busybox:1.37 --target=main -c look --profile=general -- sh -c 'ps -o args; exec sleep 1000' >/dev/null 2>&1
		await sleep k logs quiet -c look
		k logs quiet -c look
		k exec quiet -c look -- ls /proc/1/root/etc/passwd`},
}
