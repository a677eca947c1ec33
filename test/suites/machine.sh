#!/bin/sh
# Runs a command on what looks like a machine of its own: new namespaces, with
# what tests write to private. What it leaves behind ends with it.
#
# usage: machine.sh SCRATCH-DIR COMMAND [ARGUMENT...]
set -eu

if [ "${MACHINE_STEP:-outside}" = outside ]; then
	# A cgroup in each hierarchy becomes the root of the machine's. With cgroup v2
	# it could not be one, as a root has processes of its own.
	group=$(basename "$1")
	cgroups=
	if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
		for h in /sys/fs/cgroup/*/; do
			[ ! -L "${h%/}" ] || continue
			mkdir "$h$group"
			for file in cpuset.cpus cpuset.mems; do
				[ ! -e "$h$file" ] || cat "$h$file" >"$h$group/$file"
			done
			echo $$ >"$h$group/cgroup.procs"
		done
		cgroups=--cgroup
	fi
	status=0
	MACHINE_STEP=inside setpriv --pdeathsig KILL unshare --net --mount --pid --ipc $cgroups --fork --kill-child --mount-proc \
		--propagation private sh "$0" "$@" || status=$?
	for h in /sys/fs/cgroup/*/; do
		[ -d "$h$group" ] || continue
		echo $$ >"${h}cgroup.procs"
		find "$h$group" -depth -type d -exec rmdir {} +
	done
	exit $status
fi

dir=$1
shift
# By their type: the first word of a mount is a name that means nothing.
awk '$3 ~ /^cgroup2?$/ && $2 ~ "^/sys/fs/cgroup/" { print $3, $2, $4 }' /proc/self/mounts | while read -r type path options; do
	options=$(echo "$options" | sed -E 's/(^|,)(rw|relatime|nosuid|nodev|noexec|nsdelegate)//g; s/^,//')
	umount "$path"
	mount -t "$type" -o "${options:-rw}" "$type" "$path"
done
mkdir -p "$dir/lib/containerd" "$dir/lib/containerd-test" "$dir/tmp"
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=755 lib /var/lib
mkdir /var/lib/containerd /var/lib/containerd-test
mount --bind "$dir/lib/containerd" /var/lib/containerd
mount --bind "$dir/lib/containerd-test" /var/lib/containerd-test
for d in /etc /usr/local/bin; do
	mkdir -p "$dir/upper$d" "$dir/work$d"
	mount -t overlay -o "lowerdir=$d,upperdir=$dir/upper$d,workdir=$dir/work$d" private "$d"
done
mount -t tmpfs -o mode=755 opt /opt
mkdir -p /opt/cni/bin && ln -s /usr/lib/cni/* /opt/cni/bin
mount --make-rshared /
ip link set lo up
# This shell is the init, which waits for orphans too.
"$@" &
wait $!
