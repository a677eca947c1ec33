package proxyproto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxErrorText bounds the message of an error response in bytes, so that an
// error can always be reported.
const maxErrorText = 32 << 10

// Writer writes frames. Each frame is exactly one Write call, because the
// original proxy needs a whole header in one read and because a frame must not
// be mixed with another one on the same socket. It is not safe for concurrent
// use: a caller with several goroutines holds a lock around each call.
//
// A frame that is refused (a [*HeaderError]) leaves the stream intact. An error
// of the underlying writer is final and every later call returns it, because a
// part of the frame may have been sent.
type Writer struct {
	w   io.Writer
	buf []byte // reused for each frame
	err error  // of the underlying writer
}

// NewWriter returns a writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteFrame writes f with a header of three words, whatever f.HeaderWords and
// f.PayloadLen say. It does not keep f.Payload.
func (w *Writer) WriteFrame(f Frame) error {
	if w.err != nil {
		return w.err
	}
	if cap(w.buf) > retainLen && HeaderLen+len(f.Payload) <= retainLen {
		w.buf = nil
	}
	b, err := AppendFrame(w.buf[:0], f)
	if err != nil {
		return err
	}
	w.buf = b
	n, err := w.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.err = err
	return err
}

// WriteCommand writes a command. payload is nil for none, a []byte or
// json.RawMessage that is sent as it is, or a value that is sent as JSON, one
// of this package's structs as a rule.
func (w *Writer) WriteCommand(c Command, payload any) error {
	b, err := marshal(payload)
	if err != nil {
		return fmt.Errorf("encode %s command: %w", c, err)
	}
	return w.WriteFrame(Frame{Header: Header{Type: TypeCommand, Opcode: uint8(c)}, Payload: b})
}

// WriteResponse writes the response to a command that succeeded. A response
// with nothing to say has an empty payload, not "{}".
func (w *Writer) WriteResponse(c Command, payload []byte) error {
	return w.WriteFrame(Frame{Header: Header{Type: TypeResponse, Opcode: uint8(c)}, Payload: payload})
}

// WriteResponseJSON is WriteResponse with a payload as of [Writer.WriteCommand].
func (w *Writer) WriteResponseJSON(c Command, payload any) error {
	b, err := marshal(payload)
	if err != nil {
		return fmt.Errorf("encode %s response: %w", c, err)
	}
	return w.WriteResponse(c, b)
}

// WriteError writes the response to a command that failed with cause, which
// must not be nil. A [*RemoteError] in cause's chain gives the class and the
// exit status; the text is cause's, cut at 32 KiB.
func (w *Writer) WriteError(c Command, cause error) error {
	if cause == nil {
		return fmt.Errorf("encode %s error: no error given", c)
	}
	b, err := marshal(errorResponse(cause))
	if err != nil {
		return fmt.Errorf("encode %s error: %w", c, err)
	}
	return w.WriteFrame(Frame{Header: Header{Type: TypeResponse, Opcode: uint8(c), Error: true}, Payload: b})
}

// WriteStream writes one stream frame of at most MaxStreamPayload bytes. It
// does not allocate once its buffer has grown to the largest frame.
func (w *Writer) WriteStream(s Stream, p []byte) error {
	h := Header{Type: TypeStream, Opcode: uint8(s)}
	if err := h.check(len(p), MaxStreamPayload); err != nil {
		return err
	}
	return w.WriteFrame(Frame{Header: h, Payload: p})
}

// WriteNotification writes one notification.
func (w *Writer) WriteNotification(n Notification, p []byte) error {
	return w.WriteFrame(Frame{Header: Header{Type: TypeNotification, Opcode: uint8(n)}, Payload: p})
}

// WriteProcessExited writes the notification that a process has exited.
func (w *Writer) WriteProcessExited(status uint8) error {
	return w.WriteNotification(NotifyProcessExited, []byte{status})
}

// marshal encodes a payload; see [Writer.WriteCommand].
func marshal(payload any) ([]byte, error) {
	switch p := payload.(type) {
	case nil:
		return nil, nil
	case []byte:
		return p, nil
	case json.RawMessage:
		return p, nil
	}
	return Marshal(payload)
}

// Marshal encodes v as JSON. Other than [json.Marshal] it leaves HTML
// characters as they are: the data of a Hyper command goes to the guest byte
// for byte.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// errorResponse makes the payload for err.
func errorResponse(err error) ErrorResponse {
	r := ErrorResponse{Msg: err.Error()}
	if remote, ok := errors.AsType[*RemoteError](err); ok {
		r.Class, r.ExitStatus = remote.Class, remote.ExitStatus
		if r.Msg == remote.Error() {
			// Relayed as it is: the prefix belongs to the other connection.
			r.Msg = remote.Msg
		}
	}
	if len(r.Msg) > maxErrorText {
		r.Msg = strings.ToValidUTF8(r.Msg[:maxErrorText], "")
	}
	return r
}
