package hyperstart

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Sizes in bytes.
const (
	CtlHeaderLen = 8
	TTYHeaderLen = 12
	// MaxCtlPayload bounds the payload of a control message in both
	// directions. It has room for a large OCI specification and is far below
	// what would hurt the host. A sender checks it; AppendCtl does not.
	MaxCtlPayload = 4 << 20
	// MaxTTYPayload is the largest payload of a tty message in the ccv2
	// dialect; virtio-serial throughput stops growing at this size.
	MaxTTYPayload = 64 << 10
	// legacyMaxMessage is the buffer of hosts and agents older than ccv2, header included.
	legacyMaxMessage = 10240
	// CreditWindow is how many payload bytes a sender may have under way per
	// stream in the ccv2 dialect before the receiver grants more.
	CreditWindow = 512 << 10
)

// Errors of the codecs. They are wrapped in a [*MessageError].
var (
	ErrTooShort = errors.New("length below the header length")
	ErrTooLong  = errors.New("length above the limit")
)

// MessageError says which header could not be accepted.
type MessageError struct {
	Channel string // "ctl" or "tty"
	Code    uint64 // code or sequence number of the message
	Length  uint32 // length field as received
	Err     error  // ErrTooShort or ErrTooLong
}

// Error names the port, the message and what is wrong with its length.
func (e *MessageError) Error() string {
	return fmt.Sprintf("hyperstart: %s message %d: %v (%d bytes)", e.Channel, e.Code, e.Err, e.Length)
}

// Unwrap returns ErrTooShort or ErrTooLong.
func (e *MessageError) Unwrap() error { return e.Err }

// AppendCtl appends one control message to dst and returns the result.
func AppendCtl(dst []byte, code Code, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	dst = binary.BigEndian.AppendUint32(dst, uint32(CtlHeaderLen+len(payload)))
	return append(dst, payload...)
}

// CtlReader reads control messages. It is not safe for concurrent use.
type CtlReader struct {
	r      io.Reader
	header [CtlHeaderLen]byte
	buf    []byte
}

// NewCtlReader returns a reader on r, which should be buffered.
func NewCtlReader(r io.Reader) *CtlReader { return &CtlReader{r: r} }

// Read returns the next message. The payload is valid until the next call.
// A clean end of the stream is io.EOF, an end within a message
// io.ErrUnexpectedEOF, an unacceptable length a [*MessageError]; after any
// error the stream cannot be read on.
func (c *CtlReader) Read() (Code, []byte, error) {
	if _, err := io.ReadFull(c.r, c.header[:]); err != nil {
		return 0, nil, err
	}
	code := binary.BigEndian.Uint32(c.header[0:4])
	length := binary.BigEndian.Uint32(c.header[4:8])
	payload, err := readPayload(c.r, &c.buf, length, CtlHeaderLen, MaxCtlPayload)
	if errors.Is(err, ErrTooShort) || errors.Is(err, ErrTooLong) {
		err = &MessageError{Channel: "ctl", Code: uint64(code), Length: length, Err: err}
	}
	return Code(code), payload, err
}

const (
	// growStep is how much memory a payload takes before its first byte is
	// there; afterwards it takes at most about twice what has arrived.
	growStep = 64 << 10
	// retainLen is the largest buffer that a reader keeps while only smaller
	// messages pass, so that one large message does not cost memory indefinitely.
	retainLen = 128 << 10
)

// readPayload reads length-header bytes into *buf, growing it as data arrives
// so that a hostile length costs nothing before its bytes are there.
func readPayload(r io.Reader, buf *[]byte, length uint32, header, limit int) ([]byte, error) {
	if length < uint32(header) {
		return nil, ErrTooShort
	}
	// In 64 bits, because int may have 32.
	if int64(length)-int64(header) > int64(limit) {
		return nil, ErrTooLong
	}
	n := int(length) - header
	b := (*buf)[:0]
	if cap(b) > retainLen && n <= retainLen {
		b = nil
	}
	for len(b) < n {
		if len(b) == cap(b) {
			room := min(n-len(b), max(len(b), growStep))
			b = append(make([]byte, 0, len(b)+room), b...)
		}
		start := len(b)
		b = b[:min(n, cap(b))]
		if _, err := io.ReadFull(r, b[start:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	*buf = b
	return b, nil
}

// AppendCall appends the payload of a CALL message to dst.
func AppendCall(dst []byte, ticket uint32, code Code, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, ticket)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, payload...)
}

// ParseCall splits the payload of a CALL or RESULT message.
func ParseCall(b []byte) (ticket uint32, code Code, payload []byte, err error) {
	if len(b) < 8 {
		return 0, 0, nil, fmt.Errorf("hyperstart: call payload of %d bytes, at least 8 are needed", len(b))
	}
	return binary.BigEndian.Uint32(b), Code(binary.BigEndian.Uint32(b[4:])), b[8:], nil
}
