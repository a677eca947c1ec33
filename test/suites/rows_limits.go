package main

// Paths of a limit in a container, with cgroup v2 (as in the guest) and v1.
const (
	memoryFiles = "sh -c 'cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes' 2>/dev/null"
	cpuFiles    = "sh -c 'cat /sys/fs/cgroup/cpu.max || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us)' 2>/dev/null"
	pidsFiles   = "sh -c 'cat /sys/fs/cgroup/pids.max || cat /sys/fs/cgroup/pids/pids.max' 2>/dev/null"
)

// limitRows bound what a container uses.
var limitRows = []row{
	{name: "--memory", want: "100663296", script: `
		up --memory 96m
		c exec $n ` + memoryFiles + `
		c inspect --format '{{.HostConfig.Memory}}' $n`},
	{name: "out of memory", want: "exited 137", script: `
		run -d --name $n --memory 32m --memory-swap 32m $image sh -c 'tail /dev/zero' >/dev/null
		ended
		c inspect --format '{{.State.OOMKilled}}' $n`},
	{name: "--cpus", want: "150000 100000", script: `
		up --cpus 1.5
		c exec $n ` + cpuFiles},
	{name: "--cpuset-cpus", want: "Cpus_allowed_list", script: `
		up --cpuset-cpus 0
		c exec $n grep Cpus_allowed_list /proc/self/status`},
	{name: "--pids-limit", want: "20\n", script: `
		up --pids-limit 20
		c exec $n ` + pidsFiles + `
		c exec $n sh -c 'for i in $(seq 30); do sleep 2 & done' 2>&1 | grep -o "can't fork" | head -n 1`},
	{name: "update", want: "134217728", script: `
		up --memory 96m --memory-swap 192m
		c update --memory 128m --memory-swap 256m --cpus 0.5 --pids-limit 30 $n >/dev/null
		c exec $n ` + memoryFiles + `
		c exec $n ` + cpuFiles + ` | sed s/^-1/max/
		c exec $n ` + pidsFiles},
	{name: "--ulimit", want: "1000\n", script: `
		run --rm --ulimit nofile=1000:2000 --ulimit core=0 $image sh -c 'ulimit -Sn; ulimit -Hn; ulimit -c'`},
	{name: "--sysctl", want: "61000", script: `
		run --rm --sysctl net.ipv4.ip_local_port_range='60000 61000' --sysctl kernel.msgmax=9000 $image sh -c 'cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/msgmax'`},
	{name: "--shm-size", want: "32768", script: `
		run --rm --shm-size 32m $image sh -c 'df -k /dev/shm | tail -n 1 | awk "{print \$2}"'`},
	{name: "--oom-score-adj", want: "500", script: `run --rm --oom-score-adj 500 $image cat /proc/self/oom_score_adj`},
}

// rightRows are about who a container is and what it may do.
var rightRows = []row{
	{name: "--user", want: "uid=33(www-data) gid=33(www-data)", script: `
		run --rm --user www-data $image id
		run --rm --user 1000:2000 $image id
		run --rm --user 1000 --group-add 10 --group-add adm $image id
		run --rm --user nosuch $image id 2>/dev/null; [ $? -ne 0 ] && echo refused`},
	{name: "--cap-add and --cap-drop", want: "CapEff", script: `
		run --rm $image grep Cap /proc/self/status
		run --rm --cap-drop all --cap-add chown $image grep Cap /proc/self/status
		run --rm --cap-add net_admin $image ip link set lo mtu 1400
		run --rm --cap-drop chown $image chown 1 /tmp
		run --rm --user 1000 --cap-add net_admin $image grep CapEff /proc/self/status`},
	{name: "--privileged", want: "mounted", script: `
		run --rm --privileged $image sh -c 'grep CapEff /proc/self/status; mount -t tmpfs none /tmp && echo mounted'
		run --rm --privileged $image sh -c 'grep Seccomp: /proc/self/status; grep -c "/sys.* ro," /proc/mounts; touch /proc/sys/kernel/msgmax && echo writable'
		run --rm --privileged $image sh -c '[ -e /dev/kmsg ] && echo has devices'`},
	{name: "masked and read-only paths", want: "Read-only", script: `
		run --rm $image sh -c 'cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l'
		run --rm $image sh -c 'echo 1 >/proc/sys/kernel/msgmax'
		run --rm $image mount -t tmpfs none /tmp
		run --rm $image sh -c 'ls /dev | grep -v ^core$ | sort | xargs'`},
	{name: "--device of a disk", want: "of the host\n4194304\n", script: `
		f=$(mktemp); echo of the host >$f; truncate -s 4M $f; d=$(losetup --find --show $f)
		run --rm --device $d:/dev/x $image sh -c 'ls -l /dev/x | cut -c 1; head -n 1 /dev/x; blockdev --getsize64 /dev/x; echo of the container | dd of=/dev/x conv=notrunc 2>/dev/null; echo $?'
		head -n 1 $d
		run --rm --device $d:/dev/x:r $image sh -c 'head -n 1 /dev/x; (echo x >/dev/x) 2>&1'
		run --rm --privileged --device $d:/dev/x $image sh -c 'mke2fs /dev/x >/dev/null 2>&1 && mkdir /m && mount -t ext4 /dev/x /m && echo in a file >/m/f && umount /m && mount -t ext4 /dev/x /m && cat /m/f'
		losetup --detach $d; losetup --list --noheadings --output BACK-FILE | grep -c $f; rm $f`},
	{name: "--device", want: "crw", script: `
		run --rm --device /dev/zero:/dev/other:r $image sh -c 'ls -l /dev/other | cut -c 1-4; head -c 3 /dev/other | wc -c'
		run --rm --device /dev/fuse $image sh -c 'ls -l /dev/fuse | cut -c 1; : </dev/fuse && echo opened'
		run --rm $image sh -c 'mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg'
		run --rm --device /dev/nosuch $image true 2>/dev/null; [ $? -ne 0 ] && echo refused`},
	{name: "--security-opt", want: "Seccomp:\t2", script: `
		run --rm $image grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status
		run --rm --security-opt seccomp=unconfined $image grep Seccomp: /proc/self/status
		run --rm --security-opt no-new-privileges $image grep NoNewPrivs: /proc/self/status
		echo '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}' >profile.json
		run --rm --security-opt seccomp=$PWD/profile.json $image mkdir /tmp/dir
		run --rm $image unshare -U true`},
	{name: "--read-only", want: "Read-only file system", script: `
		run --rm --read-only $image touch /file
		run --rm --read-only --tmpfs /tmp $image sh -c 'touch /tmp/file && echo written'`},
	{name: "--hostname", want: "host\n", script: `
		run --rm --hostname host $image sh -c 'hostname; grep -c host /etc/hosts'
		run --rm --hostname host --domainname example.org $image sh -c 'cat /proc/sys/kernel/domainname'`},
	{name: "--pid host", want: "sees others", script: `
		run --rm --pid host $image sh -c '[ $$ -gt 1 ] && echo sees others'`},
	{name: "--pid container", want: "sleep 1000", script: `
		up
		run --rm --pid container:$n $image sh -c 'tr "\0" " " </proc/1/cmdline; echo'`},
	// nerdctl needs a /dev/mqueue on the host, which not all have.
	{name: "--ipc host", only: dockerName, want: "[0]", script: `run --rm --ipc host $image sh -c 'touch /dev/shm/$0 && rm /dev/shm/$0' $n`},
	{name: "--ipc container", want: "shared", script: `
		up --ipc shareable
		c exec $n sh -c 'echo shared >/dev/shm/file'
		run --rm --ipc container:$n $image cat /dev/shm/file`},
	{name: "--uts host", want: "the host's", script: `[ "$(run --rm --uts host $image hostname)" = "$(hostname)" ] && echo "the host's"`},
	{name: "--cgroupns", want: "[0]", script: `
		run --rm --cgroupns private $image sh -c 'grep -v :name= /proc/self/cgroup | cut -d : -f 3 | sort -u'`},
}
