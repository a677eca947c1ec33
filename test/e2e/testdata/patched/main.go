// Command patched changes code while another processor runs it, and says what it has run that was
// not there any more. `patched program` changes its own, as the compilers in many languages' runtimes do;
// `patched kernel` has the kernel change its own, by a switch that is in code of the scheduler. Then
// the kernel ends, or hangs, if it runs what was there.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	programs = 5000 // changes of a program's own code
	kernels  = 200  // changes of the kernel's
)

func main() {
	if n := runtime.NumCPU(); n < 2 {
		fatal("want 2 processors, have", n)
	}
	switch os.Args[1] {
	case "program":
		program()
	case "kernel":
		kernel()
	default:
		fatal("want program or kernel")
	}
}

func fatal(words ...any) {
	fmt.Println(words...)
	os.Exit(1)
}

// pin keeps the goroutine on a processor.
func pin(cpu int) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		fatal("pin:", err)
	}
}

// function makes a function of machine code.
func function(code []byte) (f func() uint32, page []byte) {
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		fatal("mmap:", err)
	}
	copy(page, code)
	value := &struct{ code *byte }{&page[0]} // what a func variable points to
	return *(*func() uint32)(unsafe.Pointer(&value)), page
}

// program changes a constant in an instruction, says what it is now, and waits until the other
// processor has run it.
func program() {
	const constant = 12 // is aligned, so that a store to it is seen whole
	number, page := function([]byte{
		0x53,       // push rbx
		0x31, 0xc0, // xor eax, eax
		0x0f, 0xa2, // cpuid: what comes now is fetched after it
		0x5b,       // pop rbx
		0xf3, 0x90, // pause
		0x0f, 0x1f, 0x00, // nop
		0xb8, 0, 0, 0, 0, // mov eax, constant
		0xc3, // ret
	})
	pause, _ := function([]byte{0xf3, 0x90, 0xc3})
	var published, run atomic.Uint32
	go func() {
		pin(1)
		for {
			want := published.Load()
			if got := number(); got < want {
				fatal("the code has returned", got, "after it was changed to", want)
			}
			run.Store(want)
		}
	}()
	pin(0)
	for n := uint32(1); n <= programs; n++ {
		atomic.StoreUint32((*uint32)(unsafe.Pointer(&page[constant])), n)
		published.Store(n)
		for run.Load() < n {
			pause()
		}
	}
}

// kernel turns the scheduler's statistics on and off, while two processes wait for each
// other on the other processor.
func kernel() {
	const statistics = "/proc/sys/kernel/sched_schedstats"
	was, err := os.ReadFile(statistics)
	if err != nil {
		fatal(err)
	}
	var pipes [2][2]int
	for i := range pipes {
		if err := unix.Pipe(pipes[i][:]); err != nil {
			fatal("pipe:", err)
		}
	}
	for i := range pipes {
		go func() {
			pin(1)
			b := []byte{0}
			for {
				if _, err := unix.Write(pipes[i][1], b); err != nil {
					fatal("write:", err)
				}
				if _, err := unix.Read(pipes[1-i][0], b); err != nil {
					fatal("read:", err)
				}
			}
		}()
	}
	pin(0)
	for i := range kernels {
		if err := os.WriteFile(statistics, []byte{'0' + byte(i%2)}, 0); err != nil {
			fatal(err)
		}
	}
	if err := os.WriteFile(statistics, was, 0); err != nil {
		fatal(err)
	}
}
