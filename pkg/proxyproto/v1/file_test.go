package v1_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// socketPair returns two connected Unix sockets.
func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, len(fds))
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { _ = c.Close() })
	}
	return conns[0], conns[1]
}

// openFDs counts the open descriptors of this process.
func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// TestAllocateIO does what allocateIO does: a response, then a file that works
// in both directions (D1, D2).
func TestAllocateIO(t *testing.T) {
	server, client := socketPair(t)
	guest, shim := socketPair(t)
	if err := v1.NewWriter(server).WriteResponse(v1.AllocateIOResult{IOBase: 3}); err != nil {
		t.Fatal(err)
	}
	shimFile, err := shim.File()
	if err != nil {
		t.Fatal(err)
	}
	defer shimFile.Close()
	if err := v1.SendFile(server, shimFile); err != nil {
		t.Fatal(err)
	}

	resp, err := v1.NewReader(client).ReadResponse()
	if err = errors.Join(err, resp.Err()); err != nil {
		t.Fatal(err)
	}
	f, err := v1.ReceiveFile(client)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := guest.Write([]byte("out")); err != nil {
		t.Fatal(err)
	}
	var got [3]byte
	if _, err := io.ReadFull(f, got[:]); err != nil || string(got[:]) != "out" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := f.Write([]byte("in.")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(guest, got[:]); err != nil || string(got[:]) != "in." {
		t.Errorf("read %q, %v", got, err)
	}
	if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("the file would be inherited: flags %#x, %v", flags, errno)
	}
}

// TestReceiveFileErrors: D3; no descriptor is left open.
func TestReceiveFileErrors(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	rights := func(n int) []byte {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		return syscall.UnixRights(fds...)
	}
	tests := []struct {
		name string
		data string
		oob  []byte
		want string
	}{
		{"no descriptor", "F", nil, "receive file: got 0 descriptors, want 1"},
		{"two", "F", rights(2), "receive file: got 2 descriptors, want 1"},
		{"more than there is room for", "F", rights(50), "receive file: got 4 descriptors, want 1"},
		{"wrong byte", "G", rights(1), "receive file: got byte 0x47, want 0x46"},
		{"end", "", nil, "receive file: unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server, client := socketPair(t)
			before := openFDs(t)
			if tt.data == "" {
				if err := server.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			} else if _, _, err := server.WriteMsgUnix([]byte(tt.data), tt.oob, nil); err != nil {
				t.Fatal(err)
			}
			f, err := v1.ReceiveFile(client)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, %v, want %s", f, err, tt.want)
			}
			if after := openFDs(t); after != before {
				t.Errorf("%d descriptors open, %d before", after, before)
			}
		})
	}
}

// TestClosed: errors of the socket and of the file are returned.
func TestClosed(t *testing.T) {
	server, client := socketPair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := v1.ReceiveFile(client); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed socket: %v", err)
	}
	if err := v1.SendFile(server, null); err == nil {
		t.Error("sent to a closed peer")
	}
	if err := null.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v1.SendFile(server, null); err == nil {
		t.Error("sent a closed file")
	}
}
