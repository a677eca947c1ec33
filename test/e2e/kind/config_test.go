//go:build kind

package kind_test

// configRows give a container its environment and configuration.
var configRows = []row{
	{name: "environment", want: "KEY_one=1\n", manifest: `
		apiVersion: v1
		kind: ConfigMap
		metadata: {name: c}
		data: {one: "1", two: "2"}
		---
		apiVersion: v1
		kind: Secret
		metadata: {name: s}
		stringData: {password: "p w"}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: a, labels: {l: v}, annotations: {note: "a note"}}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  enableServiceLinks: false
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "env | grep -v ^KUBERNETES_ | sort; cat /info/*; echo; readlink /info/labels"]
		      resources: {limits: {cpu: "1", memory: 64Mi}}
		      envFrom: [{prefix: KEY_, configMapRef: {name: c}}, {configMapRef: {name: none, optional: true}}]
		      env:
		        - {name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}
		        - {name: PLAIN, value: "$(PASSWORD) $$(x)"}
		        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
		        - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['l']"}}}
		        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
		        - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
		        - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
		      volumeMounts: [{name: info, mountPath: /info}]
		  volumes:
		    - name: info
		      downwardAPI:
		        items:
		          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
		          - {path: annotation, fieldRef: {fieldPath: "metadata.annotations['note']"}}
		          - {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu}}`, script: `
		apply && ended a
		k logs a`},
	{name: "configMaps and secrets", want: "-r--------", manifest: `
		apiVersion: v1
		kind: ConfigMap
		metadata: {name: c}
		data: {one: "1", two: "2"}
		binaryData: {bytes: AAEC}
		---
		apiVersion: v1
		kind: Secret
		metadata: {name: s}
		stringData: {key: secret}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "cd /etc/c; cat one deep/er/two; wc -c <bytes; stat -L -c '%A %u' /etc/s/key one; cat /etc/s/key; ls /etc/none; cat /etc/single; (echo x >one) 2>&1; ls /all"]
		      volumeMounts:
		        - {name: c, mountPath: /etc/c}
		        - {name: s, mountPath: /etc/s}
		        - {name: none, mountPath: /etc/none}
		        - {name: c, mountPath: /etc/single, subPath: one}
		        - {name: all, mountPath: /all}
		  volumes:
		    - {name: c, configMap: {name: c, items: [{key: one, path: one}, {key: two, path: deep/er/two}, {key: bytes, path: bytes}]}}
		    - {name: s, secret: {secretName: s, defaultMode: 0400}}
		    - {name: none, secret: {secretName: none, optional: true}}
		    - name: all
		      projected:
		        sources: [{configMap: {name: c}}, {secret: {name: s}}, {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}, {serviceAccountToken: {path: token, expirationSeconds: 600}}]`, script: `
		apply && ended a
		k logs a`},
	{name: "configMap and secret updated live", want: "the events came", manifest: `
		apiVersion: v1
		kind: ConfigMap
		metadata: {name: c}
		data: {key: old}
		---
		apiVersion: v1
		kind: Secret
		metadata: {name: s}
		stringData: {key: old}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "printf '#!/bin/sh\\necho $@ >>/tmp/events\\n' >/tmp/note; chmod 755 /tmp/note; touch /tmp/events; inotifyd /tmp/note /etc/c:yndcwe /etc/s:yndcwe & sleep 1; touch /tmp/watching; wait"]
		      readinessProbe: {exec: {command: [test, -e, /tmp/watching]}, periodSeconds: 1, timeoutSeconds: 10}
		      volumeMounts: [{name: c, mountPath: /etc/c}, {name: s, mountPath: /etc/s}]
		  volumes: [{name: c, configMap: {name: c}}, {name: s, secret: {secretName: s}}]`, script: `
		apply && ready a
		k exec a -- cat /etc/c/key; echo
		for kind in configmap/c secret/s; do k patch $kind -p "$([ $kind = secret/s ] && echo '{"stringData":{"key":"new"}}' || echo '{"data":{"key":"new"}}')" >/dev/null; done
		k annotate pod a touch=1 >/dev/null
		await new k exec a -- cat /etc/c/key; await new k exec a -- cat /etc/s/key
		await '/etc/c .*data' k exec a -- cat /tmp/events && await '/etc/s .*data' k exec a -- cat /tmp/events && echo the events came
		k exec a -- cat /etc/c/key; echo; k exec a -- cat /etc/s/key; echo`},
	{name: "token of a projected volume", want: "system:serviceaccount:", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a, annotations: {of: first}}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - name: main
		      image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
		      command: [sleep, "1000000"]
		      volumeMounts: [{name: t, mountPath: /t}]
		  volumes:
		    - name: t
		      projected:
		        sources:
		          - {serviceAccountToken: {path: token, expirationSeconds: 600}}
		          - {configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}
		          - {downwardAPI: {items: [{path: of, fieldRef: {fieldPath: "metadata.annotations['of']"}}]}}`, script: `
		apply && ready a
		ask() { k exec a -- sh -c 'curl -s --cacert /t/ca.crt -H "Authorization: Bearer $(cat /t/token)" https://kubernetes.default.svc/api/v1/namespaces/default/secrets' | grep -o 'User [^ ]*'; }
		ask; k exec a -- cat /t/token | cut -d. -f2 | base64 -d 2>/dev/null | grep -o '"exp":[0-9]*,"iat":[0-9]*' | tr -c '0-9\n' ' ' | awk '{print $1-$2}'
		k annotate pod a of=second --overwrite >/dev/null; await second k exec a -- cat /t/of; k exec a -- cat /t/of; echo; ask`},
	{name: "service account", want: "system:serviceaccount", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sleep, "1000000"]`, script: `
		apply && ready a
		k exec a -- ls /var/run/secrets/kubernetes.io/serviceaccount
		k exec a -- cat /var/run/secrets/kubernetes.io/serviceaccount/token | cut -d. -f2 | base64 -d 2>/dev/null | grep -o '"sub":"[^"]*"'`},
}
