#!/bin/bash
# shellcheck disable=SC2012 # names without spaces
# Namespaces within the container.
unshare -Urm sh -c 'id -u; cat /proc/self/uid_map | tr -s " "; mount -t tmpfs t /mnt 2>&1; touch /mnt/x; echo $?'
unshare --fork --pid --mount-proc sh -c 'echo $$; ls /proc | grep -c "^[0-9]"'
unshare --mount sh -c 'mount --bind /etc /mnt && ls /mnt/passwd'; ls /mnt | wc -l
unshare --uts sh -c 'hostname other; hostname'; hostname
setpriv --reuid=1000 --regid=1000 --clear-groups unshare -Ur sh -c 'id -u; touch /data/no 2>&1'
ls -A /data | wc -l
