package virtiofsd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a server wants as its limit of descriptors. The one in Rust keeps some for
// itself, and lets a guest have the rest.
const (
	wantDescriptors = 1_000_000
	ownDescriptors  = 610
)

// raiseLimit gives a server in C as many descriptors as it can have. The one in Rust
// does it by itself.
func raiseLimit(pid int) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return fmt.Errorf("limit of descriptors of virtiofsd: %w", err)
	}
	want := unix.Rlimit{Cur: max(limit.Cur, wantDescriptors), Max: max(limit.Max, wantDescriptors)}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &want, nil); err == nil {
		return nil
	}
	limit.Cur = limit.Max // more takes CAP_SYS_RESOURCE
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("limit of descriptors of virtiofsd: %w", err)
	}
	return nil
}

// Descriptors returns how many descriptors the server has open, and with how many a
// guest gets errors. Each inode that the guest has in mind is one, and each open file.
func (s *Server) Descriptors() (used, limit uint64, err error) {
	pid, err := s.serving()
	if err != nil {
		return 0, 0, err
	}
	used, err = countDescriptors(pid)
	if err != nil {
		return 0, 0, fmt.Errorf("descriptors of virtiofsd: %w", err)
	}
	var most unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &most); err != nil {
		return 0, 0, fmt.Errorf("limit of descriptors of virtiofsd: %w", err)
	}
	if !s.version.Legacy && most.Cur > ownDescriptors {
		most.Cur -= ownDescriptors
	}
	return used, most.Cur, nil
}

// serving is the process that has the files: the child of the one that was started,
// once that has confined itself.
func (s *Server) serving() (int, error) {
	if pid := s.child.Load(); pid != 0 {
		return int(pid), nil
	}
	pid := s.PID()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, fmt.Errorf("processes of virtiofsd: %w", err)
	}
	first, _, _ := strings.Cut(string(children), " ")
	if first == "" {
		return pid, nil
	}
	child, err := strconv.Atoi(first)
	if err != nil {
		return 0, fmt.Errorf("processes of virtiofsd: %w", err)
	}
	s.child.Store(int64(child)) // for good: the server ends with it
	return child, nil
}

// countDescriptors counts those of a process. Kernels from 6.2 on say the number as
// the size of the directory, which is as cheap as it can be.
func countDescriptors(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/fd", pid)
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if n := info.Size(); n > 0 {
		return uint64(n), nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	const some = 1024 // there may be a million
	var n uint64
	for {
		names, err := dir.Readdirnames(some)
		n += uint64(len(names))
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
