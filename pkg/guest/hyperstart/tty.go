package hyperstart

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// CreditSeq is the sequence number of credit messages in the ccv2 dialect. No
// process can have it: standard streams are numbered from 1.
const CreditSeq uint64 = 0

// creditLen is the size in bytes of one credit record: u64 sequence | u32 bytes.
const creditLen = 12

// PutTTYHeader writes the header of a tty message with n payload bytes into
// b, which must have at least TTYHeaderLen bytes.
func PutTTYHeader(b []byte, seq uint64, n int) {
	binary.BigEndian.PutUint64(b, seq)
	binary.BigEndian.PutUint32(b[8:], uint32(TTYHeaderLen+n))
}

// AppendTTY appends one tty message to dst and returns the result.
func AppendTTY(dst []byte, seq uint64, payload []byte) []byte {
	var header [TTYHeaderLen]byte
	PutTTYHeader(header[:], seq, len(payload))
	dst = append(dst, header[:]...)
	return append(dst, payload...)
}

// TTYReader reads tty messages. It is not safe for concurrent use.
type TTYReader struct {
	r      io.Reader
	header [TTYHeaderLen]byte
	buf    []byte
}

// NewTTYReader returns a reader on r, which should be buffered.
func NewTTYReader(r io.Reader) *TTYReader { return &TTYReader{r: r} }

// Read returns the next message. The payload is valid until the next call;
// errors are those of [CtlReader.Read].
func (t *TTYReader) Read() (seq uint64, payload []byte, err error) {
	if _, err := io.ReadFull(t.r, t.header[:]); err != nil {
		return 0, nil, err
	}
	seq = binary.BigEndian.Uint64(t.header[0:8])
	length := binary.BigEndian.Uint32(t.header[8:12])
	payload, err = readPayload(t.r, &t.buf, length, TTYHeaderLen, MaxTTYPayload)
	if errors.Is(err, ErrTooShort) || errors.Is(err, ErrTooLong) {
		err = &MessageError{Channel: "tty", Code: seq, Length: length, Err: err}
	}
	return seq, payload, err
}

// Credit grants the peer more bytes on one stream.
type Credit struct {
	Seq   uint64 // sequence number of the stream
	Bytes uint32 // payload bytes, added to what the peer may send
}

// AppendCredit appends a credit message with one record to dst.
func AppendCredit(dst []byte, c Credit) []byte {
	var record [creditLen]byte
	binary.BigEndian.PutUint64(record[:], c.Seq)
	binary.BigEndian.PutUint32(record[8:], c.Bytes)
	return AppendTTY(dst, CreditSeq, record[:])
}

// ParseCredits calls yield for every record of a credit message's payload. A
// payload that is not a whole number of records is an error.
func ParseCredits(payload []byte, yield func(Credit)) error {
	if len(payload)%creditLen != 0 {
		return fmt.Errorf("hyperstart: credit message of %d bytes, not a multiple of %d", len(payload), creditLen)
	}
	for b := payload; len(b) > 0; b = b[creditLen:] {
		yield(Credit{Seq: binary.BigEndian.Uint64(b), Bytes: binary.BigEndian.Uint32(b[8:])})
	}
	return nil
}
