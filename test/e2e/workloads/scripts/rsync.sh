#!/bin/bash
# All that a backup keeps; the second run has nothing to do.
set -e
mkdir -p /data/from/dir && cd /data/from
for i in $(seq 50); do echo "content $i" >"dir/f$i"; done
ln dir/f1 hard; ln -s dir/f2 soft; mkfifo pipe; truncate -s 5M sparse; chmod 640 dir/f3; chown 5:6 dir/f4; touch -d '2001-02-03 04:05:06.789' dir/f5
rsync -aHS --stats /data/from/ /root/to/ | grep -E 'Number of (regular files|created files)'
rsync -aHSi --checksum /data/from/ /root/to/ | wc -l
diff -r --no-dereference /data/from/dir /root/to/dir && echo same
stat -c '%n %a %u %g %h %.9Y %F' /root/to/dir/f3 /root/to/dir/f4 /root/to/dir/f5 /root/to/hard /root/to/pipe | sed 's/ 1[78][0-9]*\.[0-9]*//'
[ "$(du -k /root/to/sparse | cut -f1)" -lt 100 ] && echo sparse
rm dir/f7 && rsync -aHi --delete /data/from/ /root/to/ | grep deleting
tar -C /data/from -cf - . | tar -C /tmp -xf - && diff -r --no-dereference /data/from/dir /tmp/dir && echo tar && stat -c %h /tmp/hard
