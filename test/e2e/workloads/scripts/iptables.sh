#!/bin/bash
# A filter on the pod's own network.
iptables -N TEST && iptables -A INPUT -i lo -p tcp --dport 9 -j TEST && iptables -A TEST -j REJECT
iptables -t nat -A OUTPUT -p tcp -d 127.0.0.1 --dport 81 -j REDIRECT --to-ports 82
iptables-save | grep -e TEST -e REDIRECT
python3 - <<'END'
import socket
s = socket.create_server(("127.0.0.1", 82))
c = socket.create_connection(("127.0.0.1", 81)); print("redirected", s.accept()[1][0])
try: socket.create_connection(("127.0.0.1", 9))
except ConnectionRefusedError: print("refused")
END
ip link add v0 type veth peer name v1 && ip addr add 10.99.0.1/24 dev v0 && ip link set v0 up && ip link set v1 up && ip route show dev v0
ip -o link show | cut -d: -f2 | cut -d@ -f1 | sort | tr '\n' ' '
iptables-legacy -A INPUT -i lo -p udp --dport 9 -j REJECT && iptables-legacy -S INPUT
