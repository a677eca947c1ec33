// Command time32 waits for a moment, and prints what comes of it: a program of 32
// bits, with the system calls whose times end in 2038.
package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

func main() {
	moment := [2]int32{0, 1000} // seconds, nanoseconds
	for _, number := range []uintptr{syscall.SYS_NANOSLEEP, syscall.SYS_GETTIMEOFDAY} {
		if _, _, errno := syscall.Syscall(number, uintptr(unsafe.Pointer(&moment)), 0, 0); errno != 0 {
			fmt.Printf("system call %d: %v\n", number, errno)
		}
	}
}
