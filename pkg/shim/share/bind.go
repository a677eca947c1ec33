package share

// Access says what may be written below a bind mount.
type Access uint8

// The kinds of access. The zero value allows everything that the host allows.
const (
	WriteAll     Access = iota // everything that the host allows
	WriteBelow                 // not the mount itself, only other mounts below it (ro)
	WriteNothing               // nothing (rro)
)

// Bind says what of the host is exposed to the guest, and how.
type Bind struct {
	Source string // absolute path of a file or a directory
	Access Access
	IDs    IDMap
	Deep   bool // with what is mounted below it
	Follow bool // and what the host mounts there later
}
