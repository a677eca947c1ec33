package v1

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

const (
	// HeaderLen is the length of a message's header in bytes.
	HeaderLen = 8
	// MaxMessage bounds the JSON of one message in bytes, both ways: the
	// largest control message of the guest (4 MiB) and the JSON around it.
	MaxMessage = 4<<20 + 64<<10
)

// retain is how much of a buffer, in bytes, a reader keeps for the next message.
const retain = 64 << 10

// ErrTooLarge says that a message is longer than MaxMessage.
var ErrTooLarge = errors.New("message too large")

// Reader reads messages. It reads no byte past the message that it returns, so
// that [ReceiveFile] can follow. It is not safe for concurrent use.
type Reader struct {
	r      io.Reader
	header [HeaderLen]byte
	buf    bytes.Buffer
}

// NewReader returns a reader on r, which must not be buffered where files are
// received on the same connection.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// ReadRequest returns the next request, which may have an unknown name:
// [Request.Validate] tells. The end of the stream between two messages is
// io.EOF, within one io.ErrUnexpectedEOF. After any error the connection is to
// be closed.
func (r *Reader) ReadRequest() (Request, error) {
	var req Request
	return req, r.read("request", &req)
}

// ReadResponse returns the next response; errors are as of ReadRequest. A
// request that failed is a response, see [Response.Err].
func (r *Reader) ReadResponse() (Response, error) {
	var resp Response
	return resp, r.read("response", &resp)
}

func (r *Reader) read(kind string, v any) error {
	if _, err := io.ReadFull(r.r, r.header[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(r.header[:])
	if n > MaxMessage {
		return fmt.Errorf("read %s of %d bytes, the limit is %d: %w", kind, n, MaxMessage, ErrTooLarge)
	}
	r.buf.Reset()
	// CopyN lets the buffer grow as bytes arrive and stops exactly at n.
	if _, err := io.CopyN(&r.buf, r.r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	err := json.Unmarshal(r.buf.Bytes(), v) // which copies what it keeps
	if r.buf.Cap() > retain {
		r.buf = bytes.Buffer{}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", kind, err)
	}
	return nil
}

// Writer writes messages, each with one Write call. It is not safe for
// concurrent use. After an error of the underlying writer the connection is to
// be closed.
type Writer struct{ w io.Writer }

// NewWriter returns a writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteRequest writes a request. data is nil for none, or a value that is sent
// as JSON, one of this package's structs as a rule.
func (w *Writer) WriteRequest(m Method, data any) error {
	raw, err := rawData(data)
	if err != nil {
		return fmt.Errorf("encode %s request: %w", m, err)
	}
	return w.write(Request{ID: m, Data: raw})
}

// WriteResponse answers a request that succeeded; data is as of WriteRequest.
func (w *Writer) WriteResponse(data any) error {
	raw, err := rawData(data)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	return w.write(Response{Success: true, Data: raw})
}

// WriteError answers a request that failed with cause, which must not be nil.
func (w *Writer) WriteError(cause error) error {
	if cause == nil {
		return errors.New("encode error response: no error given")
	}
	return w.write(Response{Error: cause.Error()})
}

func rawData(data any) (json.RawMessage, error) {
	if data == nil {
		return nil, nil
	}
	return proxyproto.Marshal(data)
}

func (w *Writer) write(v any) error {
	payload, err := proxyproto.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	b := append(make([]byte, HeaderLen, HeaderLen+len(payload)), payload...)
	n := len(b) - HeaderLen
	if n > MaxMessage {
		return fmt.Errorf("write message of %d bytes, the limit is %d: %w", n, MaxMessage, ErrTooLarge)
	}
	binary.BigEndian.PutUint32(b, uint32(n))
	_, err = w.w.Write(b)
	return err
}
