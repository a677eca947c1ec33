//go:build kind

package kind_test

// workloadRows are pods that controllers make.
var workloadRows = []row{
	{name: "cron job", want: "ran\n", manifest: `
		apiVersion: batch/v1
		kind: CronJob
		metadata: {name: c}
		spec:
		  schedule: "0 0 1 1 *"
		  jobTemplate:
		    spec:
		      backoffLimit: 1
		      template:
		        spec:
		          runtimeClassName: ccv2
		          restartPolicy: Never
		          containers:
		            - {name: main, image: "busybox:1.37", command: [sh, -c, "echo ran"]}`, script: `
		apply
		k create job --from=cronjob/c now
		k wait --for=condition=Complete job/now --timeout=100s
		k logs job/now`},
	{name: "job that fails", want: "BackoffLimitExceeded", manifest: `
		apiVersion: batch/v1
		kind: Job
		metadata: {name: j}
		spec:
		  backoffLimit: 1
		  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}
		  template:
		    spec:
		      runtimeClassName: ccv2
		      restartPolicy: OnFailure
		      containers:
		        - {name: main, image: "busybox:1.37", command: [sh, -c, "exit 9"]}`, script: `
		sed -i '/podFailurePolicy/d' $dir/manifest.yaml; apply
		k wait --for=condition=Failed job/j --timeout=150s
		k get job j -o 'jsonpath={.status.conditions[?(@.type=="Failed")].reason}{"\n"}'`},
	{name: "rolling update", want: "new\n", manifest: `
		apiVersion: apps/v1
		kind: Deployment
		metadata: {name: d}
		spec:
		  replicas: 2
		  selector: {matchLabels: {app: d}}
		  template:
		    metadata: {labels: {app: d}}
		    spec:
		      runtimeClassName: ccv2
		      terminationGracePeriodSeconds: 1
		      containers:
		        - {name: main, image: "busybox:1.37", command: [sh, -c, "echo $V; exec sleep 1000000"], env: [{name: V, value: old}], resources: {limits: {cpu: 200m, memory: 32Mi}}}`, script: `
		apply; k rollout status deployment/d --timeout=100s | tail -n 1
		k set env deployment/d V=new
		k rollout status deployment/d --timeout=150s | tail -n 1
		await new k logs deployment/d; k logs deployment/d 2>/dev/null
		k rollout undo deployment/d
		k rollout status deployment/d --timeout=150s | tail -n 1`},
	{name: "replication", want: "one is new\n", manifest: `
		apiVersion: v1
		kind: ReplicationController
		metadata: {name: r}
		spec:
		  replicas: 2
		  selector: {app: r}
		  template:
		    metadata: {labels: {app: r}}
		    spec:
		      runtimeClassName: ccv2
		      terminationGracePeriodSeconds: 1
		      containers:
		        - {name: main, image: "busybox:1.37", command: [sleep, "1000000"], resources: {limits: {cpu: 200m, memory: 32Mi}}}`, script: `
		apply; await '^2$' k get rc r -o 'jsonpath={.status.readyReplicas}'
		k get pods -l app=r -o name | sort >before
		k delete $(head -n 1 before) --timeout=60s >/dev/null
		await '^2$' sh -c 'kubectl -n $ns get pods -l app=r -o name | wc -l'; k wait --for=condition=Ready pod -l app=r --timeout=100s
		k get pods -l app=r -o name | sort | comm -12 before - | wc -l | sed 's/^1$/one is new/'`},
	{name: "daemon set", want: "1 1\n", manifest: `
		apiVersion: apps/v1
		kind: DaemonSet
		metadata: {name: d}
		spec:
		  selector: {matchLabels: {app: d}}
		  template:
		    metadata: {labels: {app: d}}
		    spec:
		      runtimeClassName: ccv2
		      nodeSelector: {kubernetes.io/hostname: ccv2-worker}
		      terminationGracePeriodSeconds: 1
		      containers:
		        - {name: main, image: "busybox:1.37", command: [sleep, "1000000"]}`, script: `
		apply; k rollout status daemonset/d --timeout=100s | tail -n 1
		k get daemonset d -o 'jsonpath={.status.desiredNumberScheduled} {.status.numberReady}{"\n"}'`},
}

// crowdRows have many pods at once.
var crowdRows = []row{
	{name: "deployment scaled", want: "6 of 6\n", manifest: `
		apiVersion: apps/v1
		kind: Deployment
		metadata: {name: d}
		spec:
		  selector: {matchLabels: {app: d}}
		  template:
		    metadata: {labels: {app: d}}
		    spec:
		      runtimeClassName: ccv2
		      terminationGracePeriodSeconds: 1
		      containers:
		        - {name: main, image: "busybox:1.37", command: [sleep, "1000000"], resources: {limits: {cpu: 200m, memory: 32Mi}}}`, script: `
		apply; k rollout status deployment/d --timeout=100s | tail -n 1
		k scale deployment/d --replicas=6
		k rollout status deployment/d --timeout=200s | tail -n 1
		k get deployment d -o 'jsonpath={.status.readyReplicas} of {.spec.replicas}{"\n"}'
		k scale deployment/d --replicas=1
		await '^1$' sh -c 'kubectl -n $ns get pods -l app=d -o name | wc -l'
		k rollout status deployment/d --timeout=100s | tail -n 1`},
	{name: "ten pods at once", want: "10\n", manifest: `
		apiVersion: batch/v1
		kind: Job
		metadata: {name: j}
		spec:
		  completions: 10
		  parallelism: 10
		  template:
		    spec:
		      runtimeClassName: ccv2
		      restartPolicy: Never
		      containers:
		        - {name: main, image: "busybox:1.37", command: [sh, -c, "echo done"], resources: {limits: {cpu: 200m, memory: 32Mi}}}`, script: `
		apply
		k wait --for=condition=Complete job/j --timeout=280s
		k logs -l job-name=j --tail=-1 --max-log-requests=10 | grep -c done
		k get events --field-selector reason=FailedCreatePodSandBox -o name | wc -l`},
}
