// Command clone prints what must differ between machines that go on from the same one, beside what
// a shell can read: a line with a name and a value for each.
package main

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	fmt.Printf("hash %x\n", maphash.String(maphash.MakeSeed(), "the same text"))
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		for _, part := range []string{"stack", "vdso"} {
			if strings.HasSuffix(line, "["+part+"]\n") {
				fmt.Printf("%s %s\n", part, strings.Fields(line)[0])
			}
		}
	}
	for i := range 3 {
		if err := sequence(i); err != nil {
			return fmt.Errorf("tcp sequence number: %w", err)
		}
	}
	return nil
}

// sequence prints the initial sequence number of a connection whose addresses and ports are the
// same in all machines, and the times before and after it in nanoseconds.
func sequence(i int) error {
	const first = 20000
	at := func(port int) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: first + port} }
	l, err := net.ListenTCP("tcp", at(i))
	if err != nil {
		return err
	}
	defer l.Close()
	before := time.Now().UnixNano()
	conn, err := net.DialTCP("tcp", at(100+i), at(i))
	if err != nil {
		return err
	}
	defer conn.Close()
	after := time.Now().UnixNano()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var seq int
	controlErr := raw.Control(func(fd uintptr) { seq, err = queueSeq(int(fd)) })
	if err := errors.Join(controlErr, err); err != nil {
		return err
	}
	fmt.Printf("isn%d %d %d %d\n", i, uint32(seq)-1, before, after)
	return nil
}

// queueSeq asks for the next sequence number to be sent, as who checkpoints a connection does. It
// ends without a trace, so that there can be another one at once.
func queueSeq(fd int) (int, error) {
	const sendQueue = 2
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, sendQueue); err != nil {
		return 0, err
	}
	return unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
}
