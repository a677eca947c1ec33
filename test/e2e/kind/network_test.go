//go:build kind

package kind_test

// networkRows reach pods, Services and names.
var networkRows = []row{
	{name: "services", short: true, want: "by its own service", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: server, labels: {app: s}}
		spec:
		  runtimeClassName: ccv2
		  hostname: host
		  subdomain: headless
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "echo by its own service >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"],
		       readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: client}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]
		---
		{apiVersion: v1, kind: Service, metadata: {name: cluster}, spec: {selector: {app: s}, ports: [{port: 80, targetPort: 8080}]}}
		---
		{apiVersion: v1, kind: Service, metadata: {name: node}, spec: {type: NodePort, selector: {app: s}, ports: [{port: 80, targetPort: 8080}]}}
		---
		{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: s}, ports: [{port: 8080}]}}`, script: `
		apply && ready server client
		fetch client http://cluster/
		fetch client http://headless:8080/
		fetch client http://host.headless.$ns.svc.cluster.local:8080/
		fetch client http://$(k get pod server -o 'jsonpath={.status.podIP}'):8080/
		fetch server http://cluster/
		port=$(k get service node -o 'jsonpath={.spec.ports[0].nodePort}'); for n in ccv2-control-plane ccv2-worker ccv2-worker2; do fetch client http://$(kubectl get node $n -o 'jsonpath={.status.addresses[0].address}'):$port/; done
		k exec client -- nslookup cluster.$ns.svc.cluster.local | grep -c ^Address
		k exec server -- hostname -f`},
	{name: "dual stack", want: "two families\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: server, labels: {app: s}}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "echo by both >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: client}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"], env: [{name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]}]
		---
		{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ipFamilyPolicy: RequireDualStack, selector: {app: s}, ports: [{port: 80, targetPort: 8080}]}}`, script: `
		apply && ready server client
		await 'by both' fetch client http://s/; await 'by both' fetch client "http://[$(k get service s -o 'jsonpath={.spec.clusterIPs[1]}')]/"
		for ip in $(k get service s -o 'jsonpath={.spec.clusterIPs[*]}'); do case $ip in *:*) fetch client "http://[$ip]/";; *) fetch client http://$ip/;; esac; done
		for ip in $(k get pod server -o 'jsonpath={.status.podIPs[*].ip}'); do case $ip in *:*) fetch client "http://[$ip]:8080/";; *) fetch client http://$ip:8080/;; esac; done
		k exec client -- sh -c 'echo $IPS' | grep -q ',.*:' && echo two families
		k exec client -- sh -c 'ip -o -6 addr show dev eth0 scope global | wc -l; ip -6 route show default | grep -c via'
		k exec client -- nslookup s.$ns.svc.cluster.local | grep -c '^Address.*:.*:'`},
	{name: "session affinity", want: "1 server\n", manifest: `
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
		      containers: [{name: main, image: "registry.k8s.io/e2e-test-images/agnhost:2.63.0", command: [agnhost, netexec], resources: {limits: {cpu: 500m, memory: 96Mi}}, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
		---
		{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {sessionAffinity: ClientIP, selector: {app: d}, ports: [{port: 80, targetPort: 8080}]}}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: client}
		spec:
		  runtimeClassName: ccv2
		  containers: [{name: main, image: "busybox:1.37", command: [sleep, "1000000"]}]`, script: `
		apply; k rollout status deployment/d --timeout=150s | tail -n 1; ready client
		k exec client -- sh -c 'for i in $(seq 10); do wget -q -O - http://s/hostname; echo; done' | sort -u | wc -l | sed 's/$/ server/'`},
	{name: "DNS of a pod", want: "search a.example b.example", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  dnsPolicy: None
		  dnsConfig: {nameservers: [10.96.0.10], searches: [a.example, b.example], options: [{name: ndots, value: "2"}]}
		  hostAliases: [{ip: 10.1.2.3, hostnames: [alias.example]}]
		  hostname: name
		  subdomain: sub
		  setHostnameAsFQDN: true
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "cat /etc/resolv.conf; grep alias /etc/hosts; hostname; cat /etc/hostname; nslookup kubernetes.default.svc.cluster.local | grep -c Name; echo 127.9.9.9 mine >>/etc/hosts && grep -c mine /etc/hosts"]}`, script: `
		apply && ended a
		k logs a`},
	{name: "host port", want: "on the node", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "echo on the node >/tmp/index.html; exec httpd -f -p 8080 -h /tmp"], ports: [{containerPort: 8080, hostPort: 18080}]}`, script: `
		apply && ready a
		await 'on the node' wget -q -T 5 -O - http://$(kubectl get node ccv2-worker -o 'jsonpath={.status.addresses[0].address}'):18080/
		wget -q -T 5 -O - http://$(kubectl get node ccv2-worker -o 'jsonpath={.status.addresses[0].address}'):18080/`},
}
