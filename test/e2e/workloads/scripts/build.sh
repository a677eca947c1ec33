#!/bin/bash
# A compiler, and make, which believes the times of files.
set -e
mkdir /data/src && cd /data/src
for i in 1 2 3; do echo "int f$i(void) { return $i; }" >f$i.c; done
cat >main.c <<'END'
#include <stdio.h>
int f1(void), f2(void), f3(void);
int main(void) { printf("%d\n", f1() + f2() + f3()); return 0; }
END
printf 'prog: main.o f1.o f2.o f3.o\n\tcc -o $@ $^\n%%.o: %%.c\n\tcc -c -o $@ $<\n' >Makefile
make -j2 2>&1 | sort
./prog
make 2>&1
touch f2.c && make 2>&1
./prog
cp prog /root/prog && /root/prog && strip /root/prog && /root/prog
