package main

// server and fetch run in containers. wget of a static busybox crashes when it looks
// for its port's name.
const (
	server = `sh -c 'echo served >/tmp/index.html; httpd -f -p 80 -h /tmp'`
	fetch  = `sh -c 'for i in $(seq 50); do printf "GET / HTTP/1.0\r\n\r\n" | nc -w 5 $0 80 2>/dev/null | grep served && exit; sleep 0.2; done; exit 1'`
)

// networkRows are about a container's network.
var networkRows = []row{
	{name: "the default network", want: "eth0", script: `
		run --rm $image sh -c 'ip -o -4 addr | awk "{print \$2}"; ip route | grep -c default'
		run --rm $image sh -c 'cat /sys/class/net/eth0/mtu'
		run --rm $image sh -c 'ping -c 1 -w 20 $(ip route | awk "/default/ {print \$3}") >/dev/null && echo reaches the host'`},
	{name: "one container reaches another", want: "served", script: `
		run -d --name $n $image ` + server + ` >/dev/null
		run --rm $image ` + fetch + ` $(c inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' $n)`},
	{name: "-p", want: "served", script: `
		run -d --name $n -p 127.0.0.1:18080:80 $image ` + server + ` >/dev/null
		c port $n
		await served wget -q -T 5 -O - http://127.0.0.1:18080/
		wget -q -T 5 -O - http://127.0.0.1:18080/
		c rm -f $n
		wget -q -t 1 -T 5 -O - http://127.0.0.1:18080/; [ $? -ne 0 ] && echo closed`},
	{name: "a network with names", want: "served", script: `
		c network create $n-net >/dev/null
		run -d --name $n --network $n-net $image ` + server + ` >/dev/null
		run --rm --network $n-net $image ` + fetch + ` $n
		c network inspect --format '{{.Name}}' $n-net
		c network rm $n-net 2>/dev/null; [ $? -ne 0 ] && echo in use`},
	{name: "--network container", want: "served", script: `
		run -d --name $n $image ` + server + ` >/dev/null
		run --rm --network container:$n $image ` + fetch + ` 127.0.0.1`},
	{name: "--network none", want: "lo\n", script: `run --rm --network none $image sh -c 'ls /sys/class/net; ip -o -4 addr | awk "{print \$4}"'`},
	{
		name: "--network host", want: "the host's", script: `
		ip link add br-$n type bridge
		run --rm --network host $image ls /proc/sys/net/ipv4/conf | grep -q br-$n && echo "the host's" || echo "its own"
		ip link del br-$n`,
		differs: "a VM has a network of its own; that it is not the host's is in containerd's log", wantVM: "its own",
	},
	{name: "--add-host", want: "192.0.2.1", script: `
		run --rm --add-host example.org:192.0.2.1 $image grep example.org /etc/hosts
		run --rm --add-host example.org:192.0.2.1 $image ping -c 1 example.org 2>&1 | grep -o "(192.0.2.1)"; true`},
	{name: "--dns", want: "nameserver 192.0.2.53", script: `
		run --rm --dns 192.0.2.53 --dns-search example.org --dns-option ndots:2 $image grep -v '^#' /etc/resolv.conf`},
	{name: "--mac-address", want: "[0]", script: `
		run --rm --mac-address 02:42:ac:11:00:99 $image grep -c 02:42:ac:11:00:99 /sys/class/net/eth0/address`},
	{name: "network after a restart", want: "eth0", script: `
		up
		c restart -t 0 $n
		c exec $n sh -c 'ip -o -4 addr | awk "{print \$2}"; ip route | grep -c default'`},
	{name: "network connect", only: dockerName, want: "eth1", script: `
		c network create $n-net >/dev/null
		up
		c network connect $n-net $n
		c exec $n sh -c 'ls /sys/class/net'
		c network disconnect $n-net $n
		c exec $n sh -c 'ls /sys/class/net'`},
	{name: "compose", only: nerdctlName, want: "served", script: `
		printf '%s\n' 'services:' "  web: {image: $image, container_name: $n-web, runtime: $RUNTIME, command: [sh, -c, 'echo served >/tmp/index.html; httpd -f -p 80 -h /tmp']}" >compose.yaml
		printf '%s\n' "  user: {image: $image, container_name: $n-user, runtime: $RUNTIME, command: [sleep, '1000'], depends_on: [web]}" >>compose.yaml
		c compose -p $n up -d >/dev/null 2>&1
		c exec $n-user ` + fetch + ` web
		c compose -p $n ps --format json | grep -o '"State":"[a-z]*"' | sort
		c compose -p $n exec -T user echo hello
		c compose -p $n down >/dev/null 2>&1
		c ps -a --format '{{.Names}}'`},
}
