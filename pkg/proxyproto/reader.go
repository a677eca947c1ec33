package proxyproto

import (
	"bufio"
	"errors"
	"io"
)

const (
	// readBufferLen fits the header and the payload of a typical command, so
	// that one costs one read; larger payloads bypass the buffer.
	readBufferLen = 4 << 10
	// growStep is how much memory a payload takes before its first byte is
	// there. Afterwards it takes at most about twice what has arrived.
	growStep = 64 << 10
	// retainLen is the largest buffer that is kept while only smaller frames
	// pass, so that one large command does not cost memory indefinitely.
	retainLen = 128 << 10
)

// Reader reads frames. It buffers, so nothing else may read the stream. It is
// not safe for concurrent use.
type Reader struct {
	// Lenient accepts what the original proxy accepts on read: reserved bits
	// that are set, and the error flag on frames that are not responses. Both
	// are dropped from the frame. A server sets it for original clients; it
	// may be changed between frames.
	Lenient bool

	br     *bufio.Reader
	header [HeaderLen]byte
	buf    []byte // payload of the last frame
	err    error  // of the last ReadFrame; ends the stream
}

// NewReader returns a strict reader on r. r may deliver the bytes in any
// pieces.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, readBufferLen)}
}

// ReadFrame returns the next frame. Its payload is valid until the next call.
//
// The end of the stream between two frames is io.EOF, within a frame
// io.ErrUnexpectedEOF. A header that cannot be accepted is a [*HeaderError].
// Other errors are those of the underlying reader. Every error is final,
// because the start of the next frame is not known: later calls return it
// again, and the connection is good for nothing but to be closed.
func (r *Reader) ReadFrame() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	f, err := r.readFrame()
	if err != nil {
		r.err = err
		return Frame{}, err
	}
	return f, nil
}

func (r *Reader) readFrame() (Frame, error) {
	if _, err := io.ReadFull(r.br, r.header[:]); err != nil {
		return Frame{}, err
	}
	h, err := parseHeader(&r.header, r.Lenient)
	if err != nil {
		return Frame{}, err
	}
	if extra := (int(h.HeaderWords) - minHeaderWords) * wordLen; extra > 0 {
		if _, err := r.br.Discard(extra); err != nil {
			return Frame{}, unexpected(err)
		}
	}
	payload, err := r.readPayload(int(h.PayloadLen))
	if err != nil {
		return Frame{}, unexpected(err)
	}
	return Frame{Header: h, Payload: payload}, nil
}

// readPayload reads n bytes into r.buf, which grows as they arrive: a length
// that is never honoured costs growStep and no more.
func (r *Reader) readPayload(n int) ([]byte, error) {
	b := r.buf[:0]
	if cap(b) > retainLen && n <= retainLen {
		b = nil
	}
	for len(b) < n {
		if len(b) == cap(b) {
			b = grow(b, min(n-len(b), max(len(b), growStep)))
		}
		start := len(b)
		b = b[:min(n, cap(b))]
		if _, err := io.ReadFull(r.br, b[start:]); err != nil {
			return nil, err
		}
	}
	r.buf = b
	return b, nil
}

// grow returns a copy of b with room for n more bytes and, unlike append, not
// for more than that.
func grow(b []byte, n int) []byte {
	return append(make([]byte, 0, len(b)+n), b...)
}

// unexpected turns the end of the stream within a frame into an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
