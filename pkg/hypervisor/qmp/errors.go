package qmp

import (
	"errors"
	"fmt"
)

// ErrClosed is wrapped by every error that says that the connection is gone:
// closed here, closed by QEMU, or broken.
var ErrClosed = errors.New("qmp connection closed")

// Class is QEMU's coarse kind of a command's failure.
type Class string

// The classes that QEMU sends. All but ClassGeneric are stable and may be
// acted upon.
const (
	ClassGeneric         Class = "GenericError"
	ClassCommandNotFound Class = "CommandNotFound"
	ClassDeviceNotActive Class = "DeviceNotActive"
	ClassDeviceNotFound  Class = "DeviceNotFound"
	ClassKVMMissingCap   Class = "KVMMissingCap"
)

// Error is a command that QEMU refused or could not do. The connection stays
// usable.
type Error struct {
	Command string // the command's name
	Class   Class
	Desc    string // QEMU's text for humans
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("qmp %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// Is reports whether target is an *Error of the same class; empty fields of
// target match anything.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok &&
		(t.Class == "" || t.Class == e.Class) &&
		(t.Command == "" || t.Command == e.Command) &&
		(t.Desc == "" || t.Desc == e.Desc)
}
