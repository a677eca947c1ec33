#!/bin/bash
# Direct and asynchronous I/O, with what was written verified.
for file in /data/f /root/f; do
	for engine in io_uring libaio psync mmap; do
		direct=1
		[ $engine = mmap ] && direct=0
		fio --name=x --filename=$file --size=8m --bs=16k --rw=randwrite --ioengine=$engine --direct=$direct --iodepth=8 --verify=crc32c --do_verify=1 --fsync=32 \
			--output=/tmp/out >/dev/null 2>&1
		echo "$file $engine status $? $(stat -c %s $file)"
	done
done
