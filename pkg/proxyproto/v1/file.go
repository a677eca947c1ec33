package v1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

const (
	// fileByte travels with the descriptor: a stream socket needs data to
	// wake the receiver.
	fileByte = 'F'
	// maxFiles is how many descriptors there is room for. One is expected, the
	// rest is there to tell that there were more; the kernel drops what does
	// not fit.
	maxFiles = 4
)

// SendFile sends the descriptor of f, with the byte 'F'. f stays open and is
// the caller's.
func SendFile(conn *net.UnixConn, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("send file: %w", err)
	}
	var sendErr error
	// Control keeps the descriptor open while it is sent, and leaves f in the
	// mode that it is in, which f.Fd would not.
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = conn.WriteMsgUnix([]byte{fileByte}, syscall.UnixRights(int(fd)), nil)
	})
	if err = errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("send file: %w", err)
	}
	return nil
}

// ReceiveFile receives a descriptor that was sent with SendFile. The caller
// closes the file. No other read may have taken the byte 'F'. After an error
// the connection is to be closed; an end of the stream is io.ErrUnexpectedEOF.
func ReceiveFile(conn *net.UnixConn) (*os.File, error) {
	var data [1]byte
	oob := make([]byte, syscall.CmsgSpace(4*maxFiles)) // a descriptor has 4 bytes
	n, oobn, flags, _, err := conn.ReadMsgUnix(data[:], oob)
	fds := parseRights(oob[:oobn])
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		err = fmt.Errorf("receive file: %w", err)
	case n == 0 || err != nil:
		err = fmt.Errorf("receive file: %w", io.ErrUnexpectedEOF)
	case data[0] != fileByte:
		err = fmt.Errorf("receive file: got byte %#x, want %#x", data[0], fileByte)
	case len(fds) != 1 || flags&syscall.MSG_CTRUNC != 0:
		err = fmt.Errorf("receive file: got %d descriptors, want 1", len(fds))
	default:
		return os.NewFile(uintptr(fds[0]), "proxy-io"), nil
	}
	for _, fd := range fds {
		_ = syscall.Close(fd) // ours, but of no use
	}
	return nil, err
}

// parseRights returns all descriptors in a control message. What cannot be
// parsed has none: the kernel made it.
func parseRights(oob []byte) []int {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range messages {
		if got, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}
