//go:build kind

package kind_test

// volumeRows mount all kinds of volumes.
var volumeRows = []row{
	{name: "emptyDir", short: true, want: "from two", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  securityContext: {fsGroup: 2000}
		  containers:
		    - name: one
		      image: busybox:1.37
		      command: [sh, -c, "until [ -e /disk/two ]; do usleep 100000; done; cat /disk/two; stat -c '%a %g' /disk /memory; stat -f -c %T /memory; df -k /memory | awk 'END{print $2}'; cat /memory/two"]
		      volumeMounts: &mounts [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
		    - name: two
		      image: busybox:1.37
		      command: [sh, -c, "echo in memory >/memory/two; echo from two >/disk/part; mv /disk/part /disk/two"]
		      volumeMounts: *mounts
		  volumes: [{name: disk, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory, sizeLimit: 16Mi}}]`, script: `
		apply && ended a
		k logs a -c one`},
	{name: "hostPath", want: "made by the pod", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  nodeName: ccv2-worker
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "echo made by the pod >/host/file; exec sleep 1000000"]
		      volumeMounts: [{name: host, mountPath: /host}, {name: file, mountPath: /etc/of-node}]
		  volumes:
		    - {name: host, hostPath: {path: /var/tmp/row, type: DirectoryOrCreate}}
		    - {name: file, hostPath: {path: /etc/hostname, type: File}}`, script: `
		apply && ready a
		await made on ccv2-worker cat /var/tmp/row/file; on ccv2-worker cat /var/tmp/row/file
		on ccv2-worker sh -c 'echo made by the host >/var/tmp/row/other'
		await made k exec a -- cat /host/other; k exec a -- cat /host/other
		k exec a -- cat /etc/of-node
		k delete pod a --grace-period=0 --force >/dev/null 2>&1; on ccv2-worker rm -r /var/tmp/row`},
	{name: "persistent volume", want: "kept\n", manifest: `
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: p}
		spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "echo kept >/data/file; ln /data/file /data/link; mkfifo /data/pipe; sync"], volumeMounts: [{name: p, mountPath: /data}]}
		  volumes: [{name: p, persistentVolumeClaim: {claimName: p}}]
		---
		apiVersion: v1
		kind: Pod
		metadata: {name: b}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  initContainers:
		    - {name: wait, image: "busybox:1.37", command: [sh, -c, "until [ -e /data/pipe ]; do usleep 100000; done"], volumeMounts: [{name: p, mountPath: /data}]}
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "cat /data/link; ls -A /data; touch /data/x 2>&1"], volumeMounts: [{name: p, mountPath: /data, readOnly: true}]}
		  volumes: [{name: p, persistentVolumeClaim: {claimName: p}}]`, script: `
		apply && ended a && ended b
		k logs b`},
	{
		name: "raw block volume", want: "by the other", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "stat -c %F /dev/disk; head -n 1 /dev/disk; blockdev --getsize64 /dev/disk; until [ -e /v/done ]; do usleep 100000; done; tail -c +4097 /dev/disk | head -c 13"],
		       volumeDevices: [{name: p, devicePath: /dev/disk}], volumeMounts: [{name: v, mountPath: /v}]}
		    - {name: other, image: "busybox:1.37", command: [sh, -c, "echo by the other | dd of=/dev/xvda bs=4096 seek=1 conv=notrunc 2>/dev/null && touch /v/done"],
		       volumeDevices: [{name: p, devicePath: /dev/xvda}], volumeMounts: [{name: v, mountPath: /v}]}
		  volumes: [{name: p, persistentVolumeClaim: {claimName: p}}, {name: v, emptyDir: {}}]`, script: `
		on ccv2-worker sh -c 'echo block >/var/tmp/disk; truncate -s 1M /var/tmp/disk; losetup -f --show /var/tmp/disk' >loop
		printf 'apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: %s}\nspec: {volumeMode: Block, capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], storageClassName: none, local: {path: %s}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [ccv2-worker]}]}]}}}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: p}\nspec: {volumeMode: Block, volumeName: %s, storageClassName: none, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}\n' $ns $(cat loop) $ns | k apply -f - >/dev/null
		apply; ended a; k logs a -c main
		k delete pod/a --grace-period=1 >/dev/null; on ccv2-worker tail -c +4097 $(cat loop) | head -c 13
		k delete pvc/p pv/$ns >/dev/null 2>&1; on ccv2-worker sh -c "losetup -d $(cat loop); losetup -l -n -O BACK-FILE | grep -c /var/tmp/disk; rm /var/tmp/disk"`,
	},
	{name: "image volume", want: "busybox\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "ls /image/bin/busybox | xargs basename; touch /image/x 2>&1; ls /part | head -n 3"], volumeMounts: [{name: i, mountPath: /image}, {name: i, mountPath: /part, subPath: etc}]}
		  volumes: [{name: i, image: {reference: "busybox:1.37"}}]`, script: `
		apply && ended a
		k logs a`},
	{name: "subPath", want: "one two\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  initContainers:
		    - {name: make, image: "busybox:1.37", command: [sh, -c, "mkdir /v/dir; echo one >/v/dir/file; echo two >/v/two"], volumeMounts: [{name: v, mountPath: /v}]}
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "echo $(cat /dir/file) $(cat /file); echo more >>/file; until [ -e /expanded/post ]; do usleep 100000; done; cat /expanded/post; ls /v"]
		      env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
		      lifecycle: {postStart: {exec: {command: [sh, -c, "echo post >/expanded/post"]}}}
		      volumeMounts: [{name: v, mountPath: /dir, subPath: dir}, {name: v, mountPath: /file, subPath: two}, {name: v, mountPath: /expanded, subPathExpr: "$(NAME)/x"}, {name: v, mountPath: /v}]
		  volumes: [{name: v, emptyDir: {}}]`, script: `
		apply && ended a
		k logs a`},
	{name: "subPath of a link", want: "five five\n", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  initContainers:
		    - {name: make, image: "busybox:1.37", command: [sh, -c, "for v in /d /m; do mkdir -p $v/releases/5; echo five >$v/releases/5/file; ln -s releases/5 $v/current; done"],
		       volumeMounts: [{name: d, mountPath: /d}, {name: m, mountPath: /m}]}
		  containers:
		    - name: main
		      image: busybox:1.37
		      command: [sh, -c, "echo $(cat /disk/file) $(cat /memory/file); touch /disk/new /memory/new; ls /d/releases/5 /m/releases/5"]
		      volumeMounts: [{name: d, mountPath: /disk, subPath: current}, {name: m, mountPath: /memory, subPath: current}, {name: d, mountPath: /d}, {name: m, mountPath: /m}]
		  volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory, sizeLimit: 16Mi}}]`, script: `
		apply && ended a
		k logs a`},
	{name: "unix socket in a volume", want: "through the socket", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  restartPolicy: Never
		  containers:
		    - {name: server, image: "busybox:1.37", command: [sh, -c, "ln -s /v/s /dev/log; exec syslogd -n -O -"], volumeMounts: &m [{name: v, mountPath: /v}]}
		    - {name: client, image: "busybox:1.37", command: [sh, -c, "until [ -S /v/s ]; do usleep 100000; done; ln -s /v/s /dev/log; logger through the socket"], volumeMounts: *m}
		  volumes: [{name: v, emptyDir: {}}]`, script: `
		apply
		await socket k logs a -c server
		k logs a -c server | grep -o 'through.*'`},
	{name: "emptyDir over its limit", want: "exceeds the limit", manifest: `
		apiVersion: v1
		kind: Pod
		metadata: {name: a}
		spec:
		  runtimeClassName: ccv2
		  terminationGracePeriodSeconds: 1
		  containers:
		    - {name: main, image: "busybox:1.37", command: [sh, -c, "dd if=/dev/zero of=/v/file bs=1M count=8; exec sleep 1000000"], volumeMounts: [{name: v, mountPath: /v}]}
		  volumes: [{name: v, emptyDir: {sizeLimit: 4Mi}}]`, script: `
		apply
		k wait --for=jsonpath='{.status.reason}'=Evicted pod/a --timeout=150s >/dev/null
		k get pod a -o 'jsonpath={.status.phase} {.status.message}{"\n"}'`},
}
