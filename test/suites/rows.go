package main

import "slices"

// rowsOf returns the rows of a client: what its users do first, then the
// container's limits and rights, its files, its network, and how it ends.
func rowsOf(client string) []row {
	all := slices.Concat(processRows, lifecycleRows, limitRows, rightRows, fileRows, networkRows, logRows)
	return slices.DeleteFunc(all, func(r row) bool { return r.only != "" && r.only != client })
}

// processRows run programs and look at them.
var processRows = []row{
	{name: "run", want: "hello\n[0]", script: `
		run --rm $image echo hello
		run --rm $image sh -c 'echo out; echo err >&2; exit 7' 2>/dev/null
		run --rm $image sh -c 'echo out; echo err >&2' 2>&1 >/dev/null
		c ps -a --format '{{.Names}}'`},
	{name: "run a program that is not there", want: "executable file not found", script: `
		run --rm $image nosuch 2>/dev/null
		run --rm $image nosuch 2>&1 | grep -o 'executable file not found in $PATH'
		run --rm --entrypoint /etc/passwd $image 2>/dev/null
		run --rm --entrypoint /etc/passwd $image 2>&1 | grep -io 'permission denied' | head -n 1`},
	{name: "run a program of another format", want: "exec format error", script: `
		mkdir dir && printf 'no program\n' >dir/text && printf '#!/no/such\n' >dir/script && chmod 755 dir/*
		run --rm -v $PWD/dir:/programs $image /programs/text >out 2>&1; echo $?
		grep -o 'exec format error' out | head -n 1
		run --rm -v $PWD/dir:/programs $image /programs/script >out 2>&1; echo $?
		grep -o 'no such file or directory' out | head -n 1`},
	{name: "run in a directory that is not there", want: "/not/there\n[0]", script: `run --rm -w /not/there $image pwd`},
	{name: "run -i", want: "5\n[0]", script: `
		(echo hello; sleep 1) | run -i --rm $image cat
		echo hello | run -i --rm $image head -n 1
		(head -c 1000000 /dev/zero; sleep 1) | run -i --rm $image wc -c
		(seq 5; sleep 1) | run -i --rm $image wc -l`},
	{name: "run -it", want: "30 100", script: `
		tty '# ' 'tty\n' '# ' 'stty size\n' '# ' 'exit 3\n' -- run -it --rm -e PS1='# ' $image sh`},
	{name: "run -it and Ctrl-C", want: "interrupted\n[4]", script: `
		tty 'ready' '\x03' -- run -it --rm $image sh -c 'trap "echo interrupted; exit 4" INT; echo ready; while :; do sleep 1; done'`},
	{name: "run -t without -i", want: "/dev/pts/0", script: `tty -- run -t --rm $image tty`},
	{name: "run with large output", want: "10888896\n[0]", script: `run --rm $image sh -c 'seq 1500000' | wc -c`},
	{name: "environment", want: "A=1", script: `
		printf 'B=2\nC=3 4\n' >list
		run --rm --hostname host -e A=1 --env-file list -w /tmp --entrypoint env $image | grep -v ^container= | sort
		run --rm -w /tmp $image pwd`},
	{name: "exec", want: "uid=33", script: `
		up -e A=1
		c exec $n echo hello
		c exec $n sh -c 'echo err >&2; exit 9'
		c exec -e B=2 -w /tmp $n sh -c 'echo $A $B; pwd'
		c exec -u www-data $n id
		echo hello | c exec -i $n cat
		c exec nosuch true 2>/dev/null
		c exec --privileged $n grep CapEff /proc/self/status`},
	{name: "exec of a program that is not there", want: "executable file not found", script: `
		up
		timeout 20 $CLIENT exec $n nosuch 2>&1 | grep -o 'executable file not found in $PATH'
		timeout 20 $CLIENT exec $n nosuch >/dev/null 2>&1
		timeout 20 $CLIENT exec $n /etc/passwd >/dev/null 2>&1
		c exec $n echo hello`},
	{name: "exec -it", want: "30 100", script: `
		up -e PS1='# '
		tty '# ' 'tty\n' '# ' 'stty size\n' '# ' 'exit 3\n' -- c exec -it $n sh`},
	{name: "exec -d", want: "done", script: `
		up
		c exec -d $n sh -c 'echo done >/tmp/exec'
		await done c exec $n cat /tmp/exec
		c exec $n cat /tmp/exec`},
	{name: "top", want: "sleep 1000", script: `
		up
		c exec -d $n sleep 2000
		await 2000 c top $n
		c top $n -o pid,args | awk '{print NF, $2, $3}' | sort`},
	{name: "stats", want: "has memory", script: `
		up
		c stats --no-stream --format '{{.Name}} {{.PIDs}}' $n
		c stats --no-stream --format '{{.MemUsage}}' $n | grep -q '^0B' || echo has memory
		c stats --no-stream --format '{{.CPUPerc}}' $n | grep -c %`},
	{name: "attach, detach and attach again", want: "exited 5", script: `
		tty ready 'one\n' 'got one' '\x10\x11' -- run -it --name $n $image sh -c 'echo ready; while read -r l; do echo got $l; [ "$l" != end ] || exit 5; done' | grep -o 'got one'
		state
		tty '' 'two\n' 'got two' '\x10\x11' -- c attach $n | grep -o 'got two'
		state
		tty '' 'end\n' -- c attach $n >output; echo $?; grep -o 'got end' output
		ended`},
	{name: "the process's place", want: "1 sleep", script: `
		up --hostname host
		c exec $n sh -c 'hostname; cat /proc/1/comm'
		c exec $n sh -c 'tr "\0" " " </proc/1/cmdline; echo'
		c exec $n ps -o pid,comm | grep sleep | awk '{print $1, $2}'`},
}

// lifecycleRows begin and end containers.
var lifecycleRows = []row{
	{name: "run -d and rm", want: "running 0", script: `
		up
		state
		c ps --format '{{.Names}}'
		c rm $n 2>/dev/null
		c rm -f $n
		c ps -a --format '{{.Names}}'
		state 2>/dev/null`},
	{name: "create and start", want: "exited 6", script: `
		create --name $n $image sh -c 'echo hello; exit 6' >/dev/null
		state
		c start -a $n
		state
		c start -a $n
		c logs $n`},
	{name: "stop", want: "exited 137", script: `
		up
		c stop -t 1 $n
		state
		c start $n
		state
		run -d --name $n-trap $image sh -c 'trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null
		await ready c logs $n-trap
		c stop -t 60 $n-trap
		state $n-trap
		run -d --name $n-usr1 --stop-signal USR1 $image sh -c 'trap "exit 6" USR1; echo ready; while :; do sleep 0.1; done' >/dev/null
		await ready c logs $n-usr1
		c stop -t 60 $n-usr1
		state $n-usr1`},
	{name: "restart", want: "kept", script: `
		up
		c exec $n sh -c 'echo kept >/file'
		c restart -t 0 $n
		state
		c exec $n cat /file
		c restart -t 0 $n
		c exec $n cat /file`},
	{name: "kill", want: "exited 9", script: `
		run -d --name $n $image sh -c 'trap "echo got usr1" USR1; trap "exit 9" HUP; echo ready; while :; do sleep 0.1; done' >/dev/null
		await ready c logs $n
		c kill -s USR1 $n
		await usr1 c logs $n
		c kill -s HUP $n
		ended
		c kill $n 2>/dev/null
		c start $n
		c kill $n
		ended`},
	{name: "pause and unpause", want: "paused 0", script: `
		up
		c pause $n
		state
		c exec $n true 2>/dev/null
		c unpause $n
		state
		c exec $n echo hello
		c unpause $n 2>/dev/null`},
	{name: "wait", want: "\n3\n", script: `
		run -d --name $n $image sh -c 'sleep 1; exit 3' >/dev/null
		c wait $n
		c wait $n`},
	{name: "rename", want: "r2: running", script: `
		up
		c rename $n $n-renamed
		c exec $n-renamed echo hello
		state $n 2>/dev/null
		echo r2: $(state $n-renamed)`},
	{name: "inspect", want: "pid is positive", script: `
		up --label a=b -e A=1 -v /r-volume
		c inspect --format '{{.State.Running}} {{.State.Paused}} {{.State.ExitCode}} {{.RestartCount}} {{.Path}} {{.Args}}' $n
		c inspect --format '{{.Config.Labels.a}} {{len .Mounts}} {{(index .Mounts 0).Destination}}' $n
		[ "$(c inspect --format '{{.State.Pid}}' $n)" -gt 1 ] && echo pid is positive
		[ -d /proc/$(c inspect --format '{{.State.Pid}}' $n) ] && echo pid is there
		c ps --filter label=a=b --format '{{.Names}}'`},
	{name: "commit", want: "in an image", script: `
		up
		c exec $n sh -c 'echo in an image >/file'
		c commit -c 'CMD ["cat", "/file"]' $n local/$n >/dev/null
		run --rm local/$n
		c rmi -f local/$n >/dev/null`},
	{name: "restart always", want: "running 0", script: `
		run -d --name $n --restart always $image sh -c 'echo started; while [ ! -e /end ]; do sleep 0.1; done; rm /end' >/dev/null
		await started c logs $n
		c exec $n touch /end
		await 2 sh -c "$CLIENT logs $n | grep -c started"
		await running state; state
		c stop -t 0 $n
		state`},
	{name: "restart on failure", want: "[0]", script: `
		run -d --name $n --restart on-failure:2 $image sh -c 'echo started; exit 3' >/dev/null
		await 3 sh -c "$CLIENT logs $n | grep -c started"
		ended
		c logs $n
		state`},
	{name: "healthcheck", want: "unhealthy", only: dockerName, script: `
		up --health-cmd 'test -e /healthy' --health-interval 1s --health-retries 2
		await unhealthy c inspect --format '{{.State.Health.Status}}' $n
		c exec $n touch /healthy
		await '"healthy"' c inspect --format '{{json .State.Health.Status}}' $n
		c inspect --format '{{.State.Health.Status}}' $n
		c rm -f $n
		up --health-cmd 'exit 1' --health-interval 1s --health-retries 2
		await unhealthy c inspect --format '{{.State.Health.Status}}' $n
		c inspect --format '{{.State.Health.Status}}' $n`},
	{name: "healthcheck by hand", want: "[0]", only: nerdctlName, script: `
		up --health-cmd 'test -e /healthy' --health-retries 1 --health-interval 1h
		c container healthcheck $n 2>&1 | tail -n 1
		c inspect --format '{{.State.Health.Status}}' $n
		c exec $n touch /healthy
		c container healthcheck $n 2>&1 | tail -n 1
		c inspect --format '{{.State.Health.Status}}' $n`},
	{name: "--init", want: "reaped", script: `
		up --init
		c exec $n sh -c 'tr "\0" " " </proc/1/cmdline | grep -o tini; cat /proc/1/comm | sed s/docker-init/tini/'
		c exec $n sh -c '(sleep 0.1 &) ; sleep 1; ps -o stat,comm | grep -q ^Z || echo reaped'
		c stop -t 60 $n
		state`},
	{name: "rm of a volume's container", want: "[0]", script: `
		up -v $n-kept:/kept -v /anonymous
		c volume ls -q | wc -l
		c rm -f -v $n
		c volume ls -q`},
}
