#!/bin/bash
# Workers of another user, sendfile, ranges, and a reload.
set -e
mkdir -p /data/www && head -c 3000000 /dev/zero | tr '\0' 'x' >/data/www/big && echo hello >/data/www/index.html
cat >/tmp/nginx.conf <<'END'
user www-data; worker_processes 2; pid /tmp/nginx.pid; error_log /tmp/error.log;
events { worker_connections 64; }
http { access_log off; sendfile on; server { listen 127.0.0.1:8080; root /data/www; } }
END
nginx -c /tmp/nginx.conf
get() { python3 -c '
import sys, urllib.request, hashlib
r = urllib.request.Request("http://127.0.0.1:8080" + sys.argv[1], headers=dict(h.split("=", 1) for h in sys.argv[2:]))
with urllib.request.urlopen(r) as a: b = a.read(); print(a.status, len(b), hashlib.md5(b).hexdigest())' "$@"; }
get /
get /big
get /big Range=bytes=10-19
echo changed >/data/www/index.html
nginx -c /tmp/nginx.conf -s reload 2>/dev/null
get /
nginx -c /tmp/nginx.conf -s quit 2>/dev/null
while [ -e /tmp/nginx.pid ]; do :; done
grep -c emerg /tmp/error.log || true
