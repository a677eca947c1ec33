package proxyproto

import (
	"errors"
	"fmt"
)

// What can be wrong with a header. A [*HeaderError] wraps one of them.
var (
	ErrVersion         = errors.New("unsupported protocol version")
	ErrHeaderTooShort  = errors.New("header shorter than three words")
	ErrReservedBits    = errors.New("reserved bits are set")
	ErrErrorFlag       = errors.New("error flag outside of a response")
	ErrUnknownType     = errors.New("unknown frame type")
	ErrUnknownOpcode   = errors.New("unknown opcode")
	ErrPayloadTooLarge = errors.New("payload too large")
)

// Field names a field of the frame header.
type Field uint8

// The fields that can be wrong. The zero Field is none of them.
const (
	FieldNone Field = iota
	FieldVersion
	FieldHeaderWords
	FieldReserved
	FieldErrorFlag
	FieldType
	FieldOpcode
	FieldPayloadLength
)

// String returns the field's name as PROTOCOL.md has it.
func (f Field) String() string {
	switch f {
	case FieldNone:
		return "none"
	case FieldVersion:
		return "version"
	case FieldHeaderWords:
		return "header words"
	case FieldReserved:
		return "reserved bits"
	case FieldErrorFlag:
		return "error flag"
	case FieldType:
		return "type"
	case FieldOpcode:
		return "opcode"
	case FieldPayloadLength:
		return "payload length"
	}
	return fmt.Sprintf("field(%d)", uint8(f))
}

// HeaderError says which field of a frame header cannot be accepted, when
// reading or when writing. errors.Is finds the sentinel error of the field.
type HeaderError struct {
	Field Field
	Got   uint64 // the value of the field; reserved bits as a 32-bit mask of byte 3 to byte 6
	Type  Type   // of the frame; meaningful for FieldOpcode, FieldErrorFlag and FieldPayloadLength
	Max   uint64 // the limit in bytes, for FieldPayloadLength
}

// Error names the field, its value and what would have been right.
func (e *HeaderError) Error() string {
	switch e.Field {
	case FieldVersion:
		return fmt.Sprintf("proxyproto: version %d, this side speaks %d", e.Got, Version)
	case FieldHeaderWords:
		return fmt.Sprintf("proxyproto: header of %d words, at least %d are needed", e.Got, minHeaderWords)
	case FieldReserved:
		return fmt.Sprintf("proxyproto: reserved bits %#08x are set", e.Got)
	case FieldErrorFlag:
		return fmt.Sprintf("proxyproto: error flag on a %s, only a response can have it", e.Type)
	case FieldType:
		return fmt.Sprintf("proxyproto: unknown frame type %d", e.Got)
	case FieldOpcode:
		return fmt.Sprintf("proxyproto: unknown %s opcode %d", e.Type, e.Got)
	case FieldPayloadLength:
		return fmt.Sprintf("proxyproto: %s payload of %d bytes, the limit is %d", e.Type, e.Got, e.Max)
	case FieldNone:
	}
	return fmt.Sprintf("proxyproto: bad header: %s %d", e.Field, e.Got)
}

// Unwrap returns the sentinel error of the field, nil for FieldNone.
func (e *HeaderError) Unwrap() error {
	switch e.Field {
	case FieldVersion:
		return ErrVersion
	case FieldHeaderWords:
		return ErrHeaderTooShort
	case FieldReserved:
		return ErrReservedBits
	case FieldErrorFlag:
		return ErrErrorFlag
	case FieldType:
		return ErrUnknownType
	case FieldOpcode:
		return ErrUnknownOpcode
	case FieldPayloadLength:
		return ErrPayloadTooLarge
	case FieldNone:
	}
	return nil
}
