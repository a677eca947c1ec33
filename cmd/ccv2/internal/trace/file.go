package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
)

// Of the format.
const (
	magic      = 0xa1b23c4d // times in nanoseconds, in the order of bytes of this number
	major      = 2
	minor      = 4
	linkType   = 147 // USER0
	fileHeader = 24
	packet     = 16 // header of one
	ours       = 8  // what comes before the message
	maxPacket  = ours + wiretap.MaxRaw
)

// Writer writes a file.
type Writer struct{ w io.Writer }

// NewWriter begins a file.
func NewWriter(w io.Writer) (*Writer, error) {
	b := binary.LittleEndian.AppendUint32(nil, magic)
	b = binary.LittleEndian.AppendUint16(b, major)
	b = binary.LittleEndian.AppendUint16(b, minor)
	b = binary.LittleEndian.AppendUint64(b, 0) // zone and accuracy, which nobody uses
	b = binary.LittleEndian.AppendUint32(b, maxPacket)
	b = binary.LittleEndian.AppendUint32(b, linkType)
	_, err := w.Write(b)
	return &Writer{w}, err
}

// Write writes a message.
func (w *Writer) Write(m wiretap.Message) error {
	raw := m.Raw[:min(len(m.Raw), wiretap.MaxRaw)]
	at := time.Unix(0, m.Time)
	b := make([]byte, 0, packet+ours+len(raw))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(ours+len(raw)))
	b = binary.LittleEndian.AppendUint32(b, uint32(ours+max(m.Size, len(raw))))
	toHost := byte(0)
	if m.ToHost {
		toHost = 1
	}
	b = append(b, byte(m.Layer), toHost, 0, 0)
	b = binary.BigEndian.AppendUint32(b, m.Conn)
	_, err := w.w.Write(append(b, raw...))
	return err
}

// Reader reads a file.
type Reader struct{ r io.Reader }

// errFormat is what is wrong with a file that NewWriter has not begun.
var errFormat = errors.New("it is no file of ccv2 trace --write")

// NewReader begins to read a file.
func NewReader(r io.Reader) (*Reader, error) {
	var b [fileHeader]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, fmt.Errorf("%w: %v", errFormat, err) //nolint:errorlint // the end of it is no end of a file of ours
	}
	if binary.LittleEndian.Uint32(b[:]) != magic || binary.LittleEndian.Uint32(b[20:]) != linkType {
		return nil, errFormat
	}
	return &Reader{r}, nil
}

// Read returns the next message; io.EOF at the end, also within one that was cut off.
func (r *Reader) Read() (m wiretap.Message, err error) {
	var b [packet]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		return m, end(err)
	}
	length, size := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if length < ours || length > maxPacket || size < length {
		return m, fmt.Errorf("%w: a packet of %d bytes", errFormat, length)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(r.r, data); err != nil {
		return m, end(err)
	}
	return wiretap.Message{
		Time:  time.Unix(int64(binary.LittleEndian.Uint32(b[:])), int64(binary.LittleEndian.Uint32(b[4:]))).UnixNano(),
		Layer: wiretap.Layer(data[0]), ToHost: data[1] != 0, Conn: binary.BigEndian.Uint32(data[4:]),
		Size: int(size) - ours, Raw: data[ours:],
	}, nil
}

func end(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}
