#!/bin/bash
# Holes: made, found, punched, and of no size.
python3 - <<'END'
import os
for path in "/data/s", "/root/s":
    f = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(f, 1 << 30)
    os.pwrite(f, b"x" * 4096, 512 << 20)
    os.fsync(f)
    print(path, os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 512 << 20, os.SEEK_HOLE), os.fstat(f).st_blocks < 100)
    os.posix_fallocate(f, 0, 65536)
    print(os.fstat(f).st_blocks >= 128, os.pread(f, 3, 100))
    os.ftruncate(f, 10)
    print(os.fstat(f).st_size, os.pread(f, 20, 0))
    os.close(f)
END
for f in /data/s /root/s; do
	truncate -s 1M $f && head -c 1M /dev/zero | tr '\0' y >$f && fallocate -p -o 65536 -l 65536 $f && echo "punched $? $(stat -c %s $f)" && cmp -n 10 -i 65536:0 $f /dev/zero && echo zeros
done
