package share

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Options are the directories of a sandbox's share. They exist, and are empty.
type Options struct {
	Files  string // where the host makes the directories of the containers
	Shared string // what the guest gets: the same directories, read-only
	Stage  string // for mounts that are not exposed yet
}

// Shares is what a sandbox exposes to its guest. It is safe for concurrent use.
type Shares struct {
	opts    Options
	guest   *guestMounts
	volumes *volumes

	mu    sync.Mutex     // guards what follows
	views map[string]int // that each container had so far
}

// New returns the share of a sandbox, which has exposed nothing yet.
func New(opts Options) *Shares {
	guest := &guestMounts{files: opts.Files, shared: opts.Shared}
	return &Shares{opts: opts, guest: guest, volumes: newVolumes(guest), views: make(map[string]int)}
}

// Enter makes a process the server of the share, which it has to be already:
// from now on mounts are made in its mount namespace.
func (s *Shares) Enter(pid int) error { return s.guest.open(pid, s.opts.Shared) }

// Close ends the use of the server's mount namespace. It is idempotent.
func (s *Shares) Close() error { return s.guest.close() }

// Prepare makes the two directories of the share mounts of the same directory:
// the shim makes a container's directories in the first, and they appear in the
// second, which the guest gets.
//
// Mounts are made where the server of the share lives. Where that is QEMU they
// are made in the first directory, and shared propagation takes them to the
// second. The guest's side cannot be written to above those mounts: a guest that could
// rename a directory there, or put a link in its place, would choose where on
// the host the next container's mounts go.
func (s *Shares) Prepare() error {
	files, shared := s.opts.Files, s.opts.Shared
	if err := unix.Mount(files, files, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount shared directory: %w", err)
	}
	if err := unix.Mount("", files, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share shared directory: %w", err)
	}
	view, err := cloneMounts(unix.AT_FDCWD, files, false)
	if err != nil {
		return fmt.Errorf("mount the guest's view: %w", err)
	}
	defer func() { _ = unix.Close(view) }()
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | harmless}
	if err := unix.MountSetattr(view, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("make the guest's view read-only: %w", err)
	}
	if err := unix.MoveMount(view, "", unix.AT_FDCWD, shared, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the guest's view: %w", err)
	}
	return nil
}

// Container makes the view of a container, whose id must be the name of a
// directory. The caller closes it.
func (s *Shares) Container(id string) (*View, error) {
	if id == "" || id[0] == '.' || strings.ContainsRune(id, '/') {
		return nil, fmt.Errorf("share container: %q is not the name of a directory: %w", id, errdefs.ErrInvalidArgument)
	}
	name := s.name(id)
	v := &View{name: name, stage: filepath.Join(s.opts.Stage, name), guest: s.guest, volumes: s.volumes}
	for _, dir := range []string{s.guest.host(name), s.guest.host(v.RootfsPath()), v.stage} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("share container: %w", err)
		}
	}
	return v, nil
}

// name is the directory of a container's next view. No name comes twice: for a second the
// guest's kernel takes it for the directory that it knows, and then unmounts what it has
// mounted there, in the midst of another container's creation. No id has a tilde.
func (s *Shares) name(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.views[id]
	s.views[id]++
	if n == 0 {
		return id
	}
	return fmt.Sprintf("%s~%d", id, n)
}
