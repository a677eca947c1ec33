package main

// fileRows are about a container's files.
var fileRows = []row{
	{name: "bind mounts", want: "from the host", script: `
		mkdir dir && echo from the host >dir/file && chmod 777 dir
		run --rm -v $PWD/dir:/dir $image sh -c 'cat /dir/file; echo from the container >/dir/other'
		cat dir/other
		run --rm -v $PWD/dir:/dir:ro $image touch /dir/file
		run --rm -v $PWD/dir/file:/etc/one $image cat /etc/one
		run --rm --mount type=bind,source=$PWD/dir,target=/dir,readonly $image ls /dir
		run --rm --user 1000 -v $PWD/dir:/dir $image sh -c 'echo x >/dir/mine; stat -c %u:%a /dir/mine'
		stat -c %u dir/mine
		run --rm --mount type=bind,source=/nosuch,target=/dir $image true 2>/dev/null; [ $? -ne 0 ] && echo refused`},
	{name: "a bind mount changes under a container", want: "second", script: `
		mkdir dir && echo first >dir/file
		up -v $PWD/dir:/dir
		c exec $n cat /dir/file
		echo second >dir/new && mv dir/new dir/file
		await second c exec $n cat /dir/file
		c exec $n cat /dir/file
		c exec $n rm /dir/file
		ls dir`},
	{name: "volumes", want: "kept", script: `
		c volume create $n-volume >/dev/null
		run --rm -v $n-volume:/data $image sh -c 'echo kept >/data/file'
		run --rm -v $n-volume:/data:ro $image cat /data/file
		run --rm -v $n-volume:/data:ro $image touch /data/file
		run --rm -v $n-volume:/home $image ls /home`},
	{name: "a volume shows what the image has", want: "passwd", script: `
		run --rm -v $n-volume:/etc $image true
		run --rm -v $n-volume:/data $image ls /data/passwd`},
	{name: "--volumes-from", want: "shared", script: `
		up -v $n-volume:/data -v /anonymous
		c exec $n sh -c 'echo shared >/data/file; echo shared >/anonymous/file'
		run --rm --volumes-from $n $image cat /data/file /anonymous/file`},
	{name: "two containers write to one volume", want: "2\n[0]", script: `
		up -v $n-volume:/data
		run -d --name $n-b -v $n-volume:/data $image sleep 1000 >/dev/null
		c exec $n sh -c 'echo a >>/data/file'
		c exec $n-b sh -c 'echo b >>/data/file'
		c exec $n wc -l </dev/null /data/file | awk '{print $1}'`},
	{name: "--tmpfs", want: "65536", script: `
		run --rm --tmpfs /scratch:size=64m,mode=700 $image sh -c 'df -k /scratch | tail -n 1 | awk "{print \$2}"; stat -c %a /scratch; grep -c " /scratch tmpfs .*nosuid" /proc/mounts'
		run --rm --tmpfs /scratch $image sh -c 'touch /scratch/file && echo written'`},
	{
		name: "propagation", want: "late", script: `
		mkdir dir && mount -t tmpfs none dir && mount --make-rshared dir
		up -v $PWD/dir:/dir:rslave
		mkdir dir/sub && mount -t tmpfs none dir/sub && touch dir/sub/late
		c exec $n ls /dir/sub
		umount -R dir || umount -R -l dir`,
		differs: "the file server has open what a container has read, and the host cannot unmount it before that has gone", wantVM: "late",
	},
	{name: "cp into a container", want: "to copy", script: `
		up
		echo to copy >file
		c cp file $n:/cp-test-file
		c exec $n cat /cp-test-file
		[ ! -e /cp-test-file ] || { rm /cp-test-file; echo "the host has it"; }
		mkdir -p dir/sub && cp file dir/sub
		c cp dir $n:/cp-test-dir
		c exec $n find /cp-test-dir
		[ ! -e /cp-test-dir ] || { rm -r /cp-test-dir; echo "the host has it"; }`},
	{name: "cp out of a container", want: "copied", script: `
		up
		c exec $n sh -c 'mkdir /cp-test-dir; echo copied >/cp-test-dir/file; ln -s file /cp-test-dir/link'
		c cp $n:/cp-test-dir/file .
		cat file
		c cp $n:/cp-test-dir copy
		ls copy
		c stop -t 0 $n >/dev/null
		c cp $n:/cp-test-dir/file stopped
		cat stopped`},
	{name: "diff", want: "A /tmp/added", script: `
		up
		c exec $n sh -c 'touch /tmp/added; rm /etc/group'
		c diff $n | grep -E '/tmp/added|/etc/group' | sort`},
	{name: "the container's files", want: "pts", script: `
		up --hostname host
		c exec $n cat /etc/hostname
		c exec $n sh -c 'awk "{print \$2, \$3}" /proc/mounts | grep -E "^/(proc|dev|sys|dev/pts|dev/mqueue|dev/shm) " | sort'
		c exec $n sh -c 'stat -c "%a %u" /tmp /root /etc/passwd'`},
	{name: "export", want: "bin/busybox", script: `
		up
		c export $n | tar -t 2>/dev/null | grep -E '^(\./)?bin/busybox$' | sed 's/^\.\///'`},
}

// logRows are about what a container has printed.
var logRows = []row{
	{name: "logs", want: "three\n", script: `
		run -d --name $n $image sh -c 'echo one; sleep 1; echo two >&2; sleep 1; echo three' >/dev/null
		ended
		c logs $n 2>/dev/null
		c logs $n 2>&1 >/dev/null
		c logs --tail 1 $n 2>/dev/null
		c logs -t $n 2>/dev/null`},
	{name: "logs -f", want: "last\n", script: `
		run -d --name $n $image sh -c 'for i in 1 2 3; do echo $i; sleep 1; done; echo last' >/dev/null
		c logs -f $n`},
	{name: "logs of a terminal", want: "line", script: `
		run -d -t --name $n $image sh -c 'echo line' >/dev/null
		ended
		c logs $n`},
	{name: "logs without an end of line", want: "begin", script: `
		run -d --name $n $image sh -c 'printf begin' >/dev/null
		ended
		c logs $n
		run --rm $image printf end`},
	{name: "--log-driver json-file", want: "[0]", script: `
		run -d --name $n --log-driver json-file --log-opt max-size=10k --log-opt max-file=2 $image sh -c 'seq 5000' >/dev/null
		ended
		c logs $n | tail -n 1`},
	{name: "--log-driver none", want: "[1]", script: `
		run -d --name $n --log-driver none $image echo hello >/dev/null
		ended
		c logs $n 2>/dev/null`},
}
