#!/bin/bash
# shellcheck disable=SC2016 # scripts of the package
# A package with a conffile, a hard link, a symlink, a set-user-id program and scripts.
set -e
p=/tmp/p && mkdir -p $p/DEBIAN $p/etc $p/usr/bin $p/usr/share/thing
cat >$p/DEBIAN/control <<'END'
Package: thing
Version: 1
Architecture: all
Maintainer: n <e@x>
Description: thing
END
echo /etc/thing.conf >$p/DEBIAN/conffiles
printf '#!/bin/sh\necho postinst $1; chown games /usr/share/thing/data\n' >$p/DEBIAN/postinst
printf '#!/bin/sh\necho prerm $1\n' >$p/DEBIAN/prerm
chmod 755 $p/DEBIAN/p*
echo conf >$p/etc/thing.conf; echo data >$p/usr/share/thing/data; ln $p/usr/share/thing/data $p/usr/share/thing/hard; ln -s data $p/usr/share/thing/soft
cp /bin/true $p/usr/bin/thing; chmod 4755 $p/usr/bin/thing
dpkg-deb --root-owner-group -b $p /tmp/thing.deb >/dev/null
dpkg -i /tmp/thing.deb 2>&1 | grep -v Reading
stat -c '%n %a %U %h %s' /usr/bin/thing /usr/share/thing/* /etc/thing.conf
echo changed >/etc/thing.conf
dpkg -V thing || true
sed -i 's/Version: 1/Version: 2/' $p/DEBIAN/control && echo conf2 >$p/etc/thing.conf && dpkg-deb --root-owner-group -b $p /tmp/thing2.deb >/dev/null
dpkg --force-confold -i /tmp/thing2.deb 2>&1 | grep -v -e Reading -e Preparing
ls /etc/thing.conf*
dpkg -r thing 2>&1 | grep -v Reading
ls /usr/share/thing 2>&1 || dpkg --audit | wc -l
