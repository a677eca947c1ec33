package outqueue

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

// get returns an empty buffer with room for n bytes.
func get(n int) []byte {
	switch {
	case n < pooledFrom || n > largeBuf:
		return make([]byte, 0, n)
	case n <= middleBuf:
		return middleBufs.Get().(*[middleBuf]byte)[:0] //nolint:forcetypeassert // the pool's own type
	}
	return largeBufs.Get().(*[largeBuf]byte)[:0] //nolint:forcetypeassert // the pool's own type
}

// Put returns the buffer of a chunk to the pool; its owner must not use it again.
func Put(b []byte) {
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

// Chunk is one piece of output on its way to the client.
type Chunk struct {
	Stream proxyproto.Stream
	Buf    []byte // returned by Put
}

// Queue is a queue of output. It is not safe for concurrent use.
type Queue struct {
	list []*Chunk
	last [2]*Chunk // the last one of each stream that is in list, or nil
}

// Len is the number of chunks.
func (q *Queue) Len() int { return len(q.list) }

// Push appends a copy of p.
func (q *Queue) Push(stream proxyproto.Stream, p []byte) {
	last := q.last[Side(stream)]
	if last != nil && len(q.list) >= mergeFrom && len(last.Buf)+len(p) <= largeBuf {
		if len(last.Buf)+len(p) > cap(last.Buf) {
			grown := append(get(largeBuf), last.Buf...)
			Put(last.Buf)
			last.Buf = grown
		}
		last.Buf = append(last.Buf, p...)
		return
	}
	c := &Chunk{Stream: stream, Buf: append(get(len(p)), p...)}
	q.list = append(q.list, c)
	q.last[Side(stream)] = c
}

// Pop takes the first chunk, which must exist.
func (q *Queue) Pop() *Chunk {
	c := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	if q.last[Side(c.Stream)] == c {
		q.last[Side(c.Stream)] = nil
	}
	return c
}

// Unpop puts a chunk back that Pop took last.
func (q *Queue) Unpop(c *Chunk) { q.list = append([]*Chunk{c}, q.list...) }

// Clear drops everything.
func (q *Queue) Clear() {
	for _, c := range q.list {
		Put(c.Buf)
	}
	*q = Queue{}
}

// Side is 0 for stdout and 1 for stderr: the offset of the sequence number.
func Side(stream proxyproto.Stream) int {
	if stream == proxyproto.StreamStderr {
		return 1
	}
	return 0
}
