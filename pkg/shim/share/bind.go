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

	// Live puts the volume below this directory of the share instead of ".volumes", where
	// it is one of its own: the guest is to treat it otherwise. It is not exposed as a part
	// of another volume, nor is a part of it.
	Live string

	// Within allows a path below another volume instead of a mount of its own.
	// The containers of the pod may have changed what is there: the guest must
	// resolve the path so that it ends below that volume.
	Within bool
	// Pod is the pod's uid, "" when it has none. A volume that a kubelet has made
	// for this pod alone may be exposed as a whole where a part is asked for.
	Pod string
}
