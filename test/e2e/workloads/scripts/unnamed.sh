#!/bin/bash
# Files without a name: of a C program, which gives one a name when it is whole, and of python.
# Then flags of files.
exec 2>&1
cat >/tmp/publish.c <<'END'
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char self[64], text[8] = "";
	struct stat st;
	int fd = open(argv[1], O_TMPFILE | O_RDWR, 0644), again;

	if (argc != 3 || fd < 0)
		return perror("open"), 1;
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	if (fork() == 0)
		return write(fd, "child\n", 6) != 6;
	wait(NULL);
	again = open(self, O_RDONLY);
	if (again < 0 || fchmod(fd, 0600) || posix_fallocate(fd, 0, 8192) || fsync(fd) || pread(again, text, 6, 0) != 6 || fstat(fd, &st))
		return perror("use"), 1;
	printf("%o %ld %ld %s", st.st_mode, (long)st.st_nlink, (long)st.st_size, text);
	fflush(stdout);
	chdir(argv[1]);
	if (linkat(AT_FDCWD, self, AT_FDCWD, argv[2], AT_SYMLINK_FOLLOW))
		return perror("link"), 1;
	return 0;
}
END
cc -o /tmp/publish /tmp/publish.c 2>/dev/null
for d in /data /root; do
	cd $d || exit
	ls -A
	for i in $(seq 50); do /tmp/publish "$d" "name$i"; done | sort | uniq -c
	/tmp/publish "$d" name1
	find . -mindepth 1 -maxdepth 1 | wc -l
	cat name* | tr -d '\0' | sort | uniq -c
	stat -c '%a %h %s %U' name7
	rm name*
	python3 - <<-'END'
		import mmap, os, tempfile
		with tempfile.TemporaryFile(dir=".") as f:
		    print(os.listdir("."), os.fstat(f.fileno()).st_nlink)
		    f.write(b"x" * 3_000_000)
		    f.flush()
		    with mmap.mmap(f.fileno(), 0) as m: m[5:8] = b"abc"
		    f.seek(0)
		    print(f.read(10), os.stat(f"/proc/self/fd/{f.fileno()}").st_size)
		with tempfile.SpooledTemporaryFile(max_size=10, dir=".", mode="w+") as f:
		    f.write("more than fits\n" * 1000)
		    f.seek(0)
		    print(len(f.readlines()))
		files = [tempfile.TemporaryFile(dir=".") for _ in range(200)]
		for i, f in enumerate(files): f.write(bytes([i])); f.flush(); f.seek(0)
		print(sum(f.read(1)[0] for f in files), os.listdir("."))
	END
	mkdir dir && echo text >file && lsattr -d dir file
	chattr +dA file dir && lsattr -d dir file
	touch dir/in && lsattr -R | sort
	chattr -d file && lsattr file
	chattr +i file 2>&1; chattr +a dir 2>&1
	chmod 666 file && setpriv --reuid 1000 --clear-groups chattr +d file 2>&1
	rm -r file dir && ls -A
	cd /
done
