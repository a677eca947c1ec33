package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
)

// Version is the version of the record. A reader refuses any other: a shim of
// another release cleans up after itself.
const Version = 1

const stateFile = "state.json"

// JournalFile is the name of the file in a sandbox's directory with what has happened in it.
const JournalFile = "journal.jsonl"

// SpansFile is the name of the file with the spans of its calls, where there are some.
const SpansFile = "spans.jsonl"

// Process is a process in a record, for those who read some.
type Process = hostproc.Process

// State is the record of one sandbox.
type State struct {
	Version   int       `json:"version"`
	Namespace string    `json:"namespace"`
	ID        string    `json:"id"`
	Created   time.Time `json:"created"`
	// Processes that must not outlive the sandbox: VMM, virtiofsd.
	Processes []hostproc.Process `json:"processes,omitempty"`
	// Cgroup is the cgroupsPath of these processes' group, in either form of the
	// OCI specification; "" when there is none of its own.
	Cgroup string `json:"cgroup,omitempty"`
	// NetNS is the path of the network namespace whose links are mirrored.
	NetNS string `json:"netns,omitempty"`
	// NetNSCookie is which one that was: the path may be another one's by now. 0 on
	// kernels that do not say.
	NetNSCookie uint64 `json:"netns_cookie,omitempty"`
	// Shim is the process that owns the sandbox.
	Shim hostproc.Process `json:"shim"`
	// About is for those who look at the host; nothing is released by it.
	About About `json:"about"`
}

// About says what a sandbox is.
type About struct {
	PodNamespace string `json:"pod_namespace,omitempty"`
	Pod          string `json:"pod,omitempty"`
	PodUID       string `json:"pod_uid,omitempty"`
	CPUs         int    `json:"cpus,omitempty"`
	MemoryMiB    int    `json:"memory_mib,omitempty"`
	Accelerator  string `json:"accelerator,omitempty"`
	Source       string `json:"source,omitempty"` // "boot", "template" or "spare"; "" before there is a VM
}

// Dir is the directory of one sandbox.
type Dir struct{ path string }

// maxDirLen leaves room for the longest socket name below it: a socket's path
// has at most 107 bytes.
const maxDirLen = 107 - len("/vm/virtiofs.sock") - 1

// DirOf returns the directory of a sandbox below root. Ids that would make
// socket paths too long are replaced by a hash; the record has the real ones.
func DirOf(root, namespace, id string) Dir {
	path := filepath.Join(root, namespace, id)
	if len(path) > maxDirLen {
		sum := sha256.Sum256([]byte(namespace + "\x00" + id))
		path = filepath.Join(root, fmt.Sprintf("%x", sum[:12]))
	}
	return Dir{path: path}
}

// Open returns the directory at a path that Path returned earlier.
func Open(path string) Dir { return Dir{path: path} }

// Path is the directory itself.
func (d Dir) Path() string { return d.path }

// VM is where the VMM's sockets are.
func (d Dir) VM() string { return filepath.Join(d.path, "vm") }

// SpareDir is where, below VM, a VM is that was made before there was a sandbox, and SpareRecord
// the file there with its process: it is known before the sandbox's own record has it.
const (
	SpareDir    = "vmm" // so short that /vm/vmm/port0.sock is no longer than what maxDirLen counts
	SpareRecord = "process.json"
)

// Spare is the process of such a VM.
func (d Dir) Spare() (p hostproc.Process, ok bool) {
	err := jsonfile.Read(filepath.Join(d.VM(), SpareDir, SpareRecord), &p)
	return p, err == nil
}

// Files is what the guest sees, where the shim changes it. The guest must never
// be given this directory: who can rename or link in it decides where the shim's
// next mount goes.
func (d Dir) Files() string { return filepath.Join(d.path, "files") }

// Shared is what the guest sees, where the guest sees it.
func (d Dir) Shared() string { return filepath.Join(d.path, "shared") }

// Stage has directories for mounts that the guest does not see yet.
func (d Dir) Stage() string { return filepath.Join(d.path, "stage") }

// Create makes the directories and the record. A directory that exists is
// errdefs.ErrAlreadyExists.
func (d Dir) Create(s State) error {
	if err := d.mkdir(); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("create sandbox directory %s: %w", d.path, errdefs.ErrAlreadyExists)
		}
		return fmt.Errorf("create sandbox directory: %w", err)
	}
	if err := d.Save(s); err != nil {
		return err
	}
	const guestRoot = 0o755 // the guest sees its mode
	for dir, mode := range map[string]os.FileMode{d.VM(): 0o700, d.Files(): guestRoot, d.Shared(): guestRoot, d.Stage(): 0o700} {
		if err := os.Mkdir(dir, mode); err != nil {
			return fmt.Errorf("create sandbox directory: %w", err)
		}
	}
	return nil
}

// mkdir makes the directory and those above it. The one of the namespace may be
// removed by another shim, whose sandbox was the last one in it, just before
// ours is made.
func (d Dir) mkdir() (err error) {
	const tries = 10
	for range tries {
		if err := os.MkdirAll(filepath.Dir(d.path), 0o711); err != nil {
			return err
		}
		// For root alone: a container can make set-user-id programs below it.
		if err = os.Mkdir(d.path, 0o700); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return err
}

// Save replaces the record.
func (d Dir) Save(s State) error {
	s.Version = Version
	return jsonfile.Write(filepath.Join(d.path, stateFile), s)
}

// Load reads the record. One that is missing is errdefs.ErrNotFound.
func (d Dir) Load() (State, error) {
	var s State
	if err := jsonfile.Read(filepath.Join(d.path, stateFile), &s); err != nil {
		return s, err
	}
	if s.Version != Version {
		return s, fmt.Errorf("read %s: version %d, this release knows %d", filepath.Join(d.path, stateFile), s.Version, Version)
	}
	return s, nil
}
