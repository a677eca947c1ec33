package proxyproto

import (
	"encoding/binary"
	"fmt"
)

// Version is the protocol version in every frame. Version 1 is another
// protocol, see the package v1.
const Version = 2

// Sizes in bytes.
const (
	// HeaderLen is the length of the header that is written, and the least
	// that is read.
	HeaderLen = 12
	// MaxPayload bounds the payload of any frame in both directions: the
	// largest control message of the guest (4 MiB) and the JSON of [Hyper]
	// around it. The original proxy has no bound and reserves up to 4 GiB.
	MaxPayload = 4<<20 + 64<<10
	// MaxStreamPayload bounds what [Writer.WriteStream] sends in one frame, the
	// largest tty message of the guest. Readers accept up to MaxPayload.
	MaxStreamPayload = 64 << 10
)

const (
	wordLen        = 4
	minHeaderWords = HeaderLen / wordLen

	errorFlag = 0x10 // bit 4 of byte 6
	typeMask  = 0x0f // bits 3..0 of byte 6

	// reservedMask selects the reserved bits of bytes 3 to 6: three whole
	// bytes and bits 7..5 of byte 6.
	reservedMask = 0xffffff00 | ^uint32(errorFlag|typeMask)&0xff
)

// Header is the header of a frame.
type Header struct {
	Type   Type
	Opcode uint8 // a Command, Stream or Notification, as Type says
	// Error marks the response to a command that failed.
	Error bool
	// HeaderWords is the header's length in 32-bit words as it was read, 3 to
	// 255. Writing ignores it: three words are written.
	HeaderWords uint8
	// PayloadLen is the payload's length in bytes as it was read. Writing
	// ignores it: the length of the payload counts.
	PayloadLen uint32
}

// Frame is one message. The zero Frame is an empty RegisterVM command.
type Frame struct {
	Header
	// Payload is nil or empty when there is none. A frame from a [Reader]
	// shares it with the reader.
	Payload []byte
}

// Command returns the command that f is or answers. It is meaningful when
// Type is TypeCommand or TypeResponse.
func (h Header) Command() Command { return Command(h.Opcode) }

// Stream returns which stream f belongs to. It is meaningful when Type is
// TypeStream.
func (h Header) Stream() Stream { return Stream(h.Opcode) }

// Notification returns what f notifies of. It is meaningful when Type is
// TypeNotification.
func (h Header) Notification() Notification { return Notification(h.Opcode) }

// String describes the header for logs, such as "response Hyper (error)".
func (h Header) String() string {
	s := h.Type.String() + " " + enumName(h.Type.opcodes(), "opcode", h.Opcode)
	if h.Error {
		s += " (error)"
	}
	return s
}

// String describes the frame for logs. It never shows payload bytes, which are
// the users' data.
func (f Frame) String() string { return fmt.Sprintf("%s, %d bytes", f.Header, len(f.Payload)) }

// check refuses what no reader accepts: PROTOCOL.md F6 to F9.
func (h Header) check(payloadLen, limit int) error {
	switch {
	case !h.Type.valid():
		return &HeaderError{Field: FieldType, Got: uint64(h.Type)}
	case int(h.Opcode) >= len(h.Type.opcodes()):
		return &HeaderError{Field: FieldOpcode, Got: uint64(h.Opcode), Type: h.Type}
	case h.Error && h.Type != TypeResponse:
		return &HeaderError{Field: FieldErrorFlag, Got: 1, Type: h.Type}
	case payloadLen > limit:
		return &HeaderError{Field: FieldPayloadLength, Got: uint64(payloadLen), Type: h.Type, Max: uint64(limit)}
	}
	return nil
}

// AppendFrame appends the encoded frame to dst and returns the result. It
// refuses, with a [*HeaderError] and dst unchanged, every frame that a
// [Reader] would not accept.
func AppendFrame(dst []byte, f Frame) ([]byte, error) {
	if err := f.check(len(f.Payload), MaxPayload); err != nil {
		return dst, err
	}
	flags := byte(f.Type)
	if f.Error {
		flags |= errorFlag
	}
	dst = append(dst, 0, Version, minHeaderWords, 0, 0, 0, flags, f.Opcode)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Payload)))
	return append(dst, f.Payload...), nil
}

// parseHeader decodes the first three words of a frame.
func parseHeader(b *[HeaderLen]byte, lenient bool) (Header, error) {
	h := Header{
		Type:        Type(b[6] & typeMask),
		Opcode:      b[7],
		Error:       b[6]&errorFlag != 0,
		HeaderWords: b[2],
		PayloadLen:  binary.BigEndian.Uint32(b[8:]),
	}
	if v := binary.BigEndian.Uint16(b[0:]); v != Version {
		return h, &HeaderError{Field: FieldVersion, Got: uint64(v)}
	}
	if h.HeaderWords < minHeaderWords {
		return h, &HeaderError{Field: FieldHeaderWords, Got: uint64(h.HeaderWords)}
	}
	if lenient {
		// The original ignores the flag where it means nothing; cleared, the
		// frame can be written again.
		h.Error = h.Error && h.Type == TypeResponse
	} else if got := binary.BigEndian.Uint32(b[3:]) & reservedMask; got != 0 {
		return h, &HeaderError{Field: FieldReserved, Got: uint64(got)}
	}
	// int holds 32 bits without a sign only on 64-bit machines.
	return h, h.check(int(min(h.PayloadLen, 1<<31-1)), MaxPayload)
}
