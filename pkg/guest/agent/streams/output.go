package streams

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// DrainDelay is how long after the end of a container's init process its
// output is awaited when somebody outside of the container keeps the stream open.
const DrainDelay = 2 * time.Second

// output pumps one stream of a process to the host.
type output struct {
	seq    uint64
	file   *os.File // read end of the pipe, or the terminal's master
	credit *credit
	write  func([]byte) bool // false when the port has failed
	piece  int               // bytes of a message at most

	sending atomic.Bool // has read something that is not sent
}

const (
	// firstRead is how much is read at once of a process that writes little.
	firstRead = 8 << 10
	// largeRead is how much is read at once of a process that writes much, and what its pipe
	// has room for then: each switch between the two costs an emulated processor all that
	// it knows of addresses.
	largeRead = hyperstart.CreditWindow / 2
)

// largeBufs are buffers for reads of largeRead bytes, of which only those that need them have one.
var largeBufs = sync.Pool{New: func() any { return new([hyperstart.TTYHeaderLen + largeRead]byte) }}

// pump sends everything until the end of the stream. It waits for credit of
// its own stream only. It reads right after the room for a header, so that
// a message is one write without a copy.
func (o *output) pump() {
	buf := make([]byte, hyperstart.TTYHeaderLen+firstRead)
	var large *[hyperstart.TTYHeaderLen + largeRead]byte
	defer func() {
		if large != nil {
			largeBufs.Put(large)
		}
	}()
	limit := -1 // bytes still to be read after the deadline; -1 before it
	for limit != 0 {
		data := buf[hyperstart.TTYHeaderLen:]
		if limit > 0 {
			data = data[:min(limit, len(data))]
		}
		n, err := o.file.Read(data)
		if n > 0 && !o.send(buf, n) {
			return
		}
		if n == firstRead && large == nil {
			large, _ = largeBufs.Get().(*[hyperstart.TTYHeaderLen + largeRead]byte)
			buf = large[:]
			o.widen()
		}
		if limit > 0 {
			limit -= n
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// What the process itself wrote is in the pipe already; take that
			// and leave what descendants write from here on.
			limit = o.pending()
			if o.file.SetReadDeadline(time.Time{}) != nil {
				return
			}
			continue
		}
		if err != nil {
			return // io.EOF, or EIO from a terminal that nobody has open
		}
	}
}

// widen makes room in the pipe for what a large read takes. A terminal has no pipe, and
// a system may allow no more: then it stays as it is.
func (o *output) widen() {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, largeRead) })
}

// send sends n bytes that are in buf after the header. The header of every
// further piece overwrites the end of the piece before, which is sent by then.
func (o *output) send(buf []byte, n int) bool {
	o.sending.Store(true)
	defer o.sending.Store(false)
	for off := 0; off < n; {
		got := o.credit.take(min(n-off, o.piece))
		if got == 0 {
			return false
		}
		end := off + hyperstart.TTYHeaderLen + got
		hyperstart.PutTTYHeader(buf[off:], o.seq, got)
		if !o.write(buf[off:end]) {
			return false
		}
		off += got
	}
	return true
}

// pending is the number of bytes that can be read without waiting.
func (o *output) pending() int {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err != nil || cerr != nil {
		return 0
	}
	return n
}

// stopSoon bounds how long the pump waits for a stream that stays open.
func (o *output) stopSoon() { _ = o.file.SetReadDeadline(time.Now().Add(DrainDelay)) }
