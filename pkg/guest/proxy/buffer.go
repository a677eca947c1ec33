package proxy

import (
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Sizes of the buffers that are used again. What is smaller than pooledFrom is
// allocated as it is: a process that writes single bytes must not hold a large
// buffer for each of them.
const (
	pooledFrom = 2 << 10
	middleBuf  = 16 << 10
	largeBuf   = hyperstart.MaxTTYPayload
)

var (
	middleBufs = sync.Pool{New: func() any { return new([middleBuf]byte) }}
	largeBufs  = sync.Pool{New: func() any { return new([largeBuf]byte) }}
)

// getBuf returns an empty buffer with room for n bytes.
func getBuf(n int) []byte {
	switch {
	case n < pooledFrom || n > largeBuf:
		return make([]byte, 0, n)
	case n <= middleBuf:
		return middleBufs.Get().(*[middleBuf]byte)[:0] //nolint:forcetypeassert // the pool's own type
	}
	return largeBufs.Get().(*[largeBuf]byte)[:0] //nolint:forcetypeassert // the pool's own type
}

// putBuf takes a buffer back that nobody uses any more.
func putBuf(b []byte) {
	switch cap(b) {
	case middleBuf:
		middleBufs.Put((*[middleBuf]byte)(b[:middleBuf]))
	case largeBuf:
		largeBufs.Put((*[largeBuf]byte)(b[:largeBuf]))
	}
}

// mergeFrom is the number of chunks in a queue from which on new data joins
// the last chunk of its stream. Up to there each message of the guest stays a
// frame of its own, as with the original proxy; beyond, the number of chunks
// must not follow the number of messages, which a guest chooses.
const mergeFrom = 64

// chunk is one piece of output on its way to the client.
type chunk struct {
	stream proxyproto.Stream
	buf    []byte // from getBuf
}

// chunks is a queue of output. It is not safe for concurrent use.
type chunks struct {
	list []*chunk
	last [2]*chunk // the last one of each stream that is in list, or nil
}

func (q *chunks) len() int { return len(q.list) }

// push appends a copy of p.
func (q *chunks) push(stream proxyproto.Stream, p []byte) {
	last := q.last[side(stream)]
	if last != nil && len(q.list) >= mergeFrom && len(last.buf)+len(p) <= largeBuf {
		if len(last.buf)+len(p) > cap(last.buf) {
			grown := append(getBuf(largeBuf), last.buf...)
			putBuf(last.buf)
			last.buf = grown
		}
		last.buf = append(last.buf, p...)
		return
	}
	c := &chunk{stream: stream, buf: append(getBuf(len(p)), p...)}
	q.list = append(q.list, c)
	q.last[side(stream)] = c
}

// pop takes the first chunk, which must exist.
func (q *chunks) pop() *chunk {
	c := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	if q.last[side(c.stream)] == c {
		q.last[side(c.stream)] = nil
	}
	return c
}

// unpop puts a chunk back that pop took last.
func (q *chunks) unpop(c *chunk) { q.list = append([]*chunk{c}, q.list...) }

// clear drops everything.
func (q *chunks) clear() {
	for _, c := range q.list {
		putBuf(c.buf)
	}
	*q = chunks{}
}

// side is 0 for stdout and 1 for stderr: the offset of the sequence number.
func side(stream proxyproto.Stream) int {
	if stream == proxyproto.StreamStderr {
		return 1
	}
	return 0
}
