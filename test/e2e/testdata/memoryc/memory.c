/*
 * memory grow MIB: takes and touches so much.
 * memory reserve MIB: takes it and touches a page.
 * memory hold MIB PROGRAM...: touches so much, and keeps it while a program runs.
 * memory map FILE N: reads N pages of a mapped file, here and there.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *take(size_t size)
{
	char *p = malloc(size);
	if (!p) {
		perror("malloc");
		exit(2);
	}
	return p;
}

static int hold(size_t size, char **argv)
{
	char *p = take(size);
	int status;
	pid_t pid;

	memset(p, 1, size);
	pid = vfork();
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || p[size / 2] != 1)
		return 3;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int map(const char *path, long n)
{
	unsigned long x = 1, sum = 0;
	struct stat st;
	int fd = open(path, O_RDONLY);
	unsigned char *p;

	if (fd < 0 || fstat(fd, &st) != 0)
		return 4;
	p = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return 5;
	for (long i = 0; i < n; i++) {
		x = x * 6364136223846793005UL + 1442695040888963407UL;
		sum += p[(x >> 20) % (st.st_size / 4096) * 4096];
	}
	printf("%lu\n", sum);
	return 0;
}

int main(int argc, char **argv)
{
	size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) << 20 : 0;

	if (argc > 3 && strcmp(argv[1], "hold") == 0)
		return hold(size, argv + 3);
	if (argc > 3 && strcmp(argv[1], "map") == 0)
		return map(argv[2], atol(argv[3]));
	if (argc > 2 && strcmp(argv[1], "grow") == 0)
		for (size_t i = 0; i < size >> 20; i++)
			memset(take(1 << 20), 1, 1 << 20);
	else if (argc > 2 && strcmp(argv[1], "reserve") == 0)
		take(size)[size / 2] = 1;
	else
		return 1;
	puts("done");
	return 0;
}
