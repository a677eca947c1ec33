// Command watch prints what is moved into a directory.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := watch(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func watch(dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		return err
	}
	fmt.Println("waits")
	buf := make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1) // for one event at least
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			size := int(b[12]) // of the name, in a little-endian number below 256
			fmt.Println("moved", strings.TrimRight(string(b[unix.SizeofInotifyEvent:][:size]), "\x00"))
			b = b[unix.SizeofInotifyEvent+size:]
		}
	}
}
