package virtiofsd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/internal/child"
)

// Options describe one server.
type Options struct {
	Binary    string // path of virtiofsd: QEMU's own (C) or the one in Rust
	SharedDir string // absolute path of a directory; see the package's text on mounts
	Socket    string // absolute path to listen on, at most 107 bytes; must not exist
	// OwnMounts names directories of SharedDir's own mount. What is mounted on them is
	// the guest's alone, and part of the file system that SharedDir is in the guest:
	// where the server can do that, access control lists are obeyed there.
	OwnMounts string
}

// Server is one running virtiofsd.
type Server struct {
	proc    *child.Process
	socket  string
	version Version
	child   atomic.Int64 // pid of the process that serves, 0 before it is known
}

// Start runs a server. ctx bounds the start alone. On error no process and no
// socket is left; classes are errdefs.ErrNotFound for a missing binary or
// directory and ErrInvalidArgument for bad options. A server that does not
// like its directory ends later: see Done.
func Start(ctx context.Context, opts Options) (*Server, error) {
	s, err := start(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("start virtiofsd: %w", err)
	}
	return s, nil
}

func start(ctx context.Context, opts Options) (*Server, error) {
	if err := validate(opts); err != nil {
		return nil, err
	}
	version, err := Probe(ctx, opts.Binary)
	if err != nil {
		return nil, err
	}
	listener, err := listen(opts.Socket)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	// The server makes a file as the user that the guest names, without that
	// user's supplementary groups, of which the guest does not tell. Without its
	// capabilities it would refuse what the guest's kernel has just allowed: a
	// new file in a volume that is a group's (fsGroup).
	proc, err := child.Start(child.Options{KeepCaps: true}, opts.Binary, commandLine(opts, version), listener)
	if err != nil {
		return nil, errors.Join(err, os.Remove(opts.Socket))
	}
	s := &Server{proc: proc, socket: opts.Socket, version: version}
	if version.Legacy {
		if err := raiseLimit(s.PID()); err != nil {
			return nil, errors.Join(err, s.Kill(ctx))
		}
	}
	return s, nil
}

// PID is the server's process id; it is not reused before Done is closed. In
// the namespace sandbox the server has one child of its own while it is connected.
func (s *Server) PID() int { return s.proc.PID() }

// Done is closed when the server has ended and was reaped.
func (s *Server) Done() <-chan struct{} { return s.proc.Done() }

// Exit says how the server ended: the zero value before Done is closed.
func (s *Server) Exit() hypervisor.Exit { return s.proc.Exit() }

// Kill ends the server with its child at once, waits until it is reaped and
// removes the socket. It is idempotent.
func (s *Server) Kill(ctx context.Context) error {
	if err := s.proc.Kill(); err != nil {
		return fmt.Errorf("kill virtiofsd: %w", err)
	}
	select {
	case <-s.proc.Done():
	case <-ctx.Done():
		return fmt.Errorf("kill virtiofsd %d: still there after SIGKILL: %w", s.PID(), ctx.Err())
	}
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("kill virtiofsd: %w", err)
	}
	return nil
}

func validate(opts Options) error {
	const maxSocket = 107 // sun_path without its terminator
	if !filepath.IsAbs(opts.Socket) || len(opts.Socket) > maxSocket {
		return fmt.Errorf("socket %q has %d bytes: want an absolute path of at most %d: %w",
			opts.Socket, len(opts.Socket), maxSocket, errdefs.ErrInvalidArgument)
	}
	if !filepath.IsAbs(opts.SharedDir) {
		return fmt.Errorf("shared directory %q: want an absolute path: %w", opts.SharedDir, errdefs.ErrInvalidArgument)
	}
	info, err := os.Stat(opts.SharedDir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("shared directory %s: %w", opts.SharedDir, errdefs.ErrNotFound)
	case err != nil:
		return fmt.Errorf("shared directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("shared directory %s: not a directory: %w", opts.SharedDir, errdefs.ErrInvalidArgument)
	}
	return nil
}

// listen makes the socket and returns its descriptor; the path stays.
func listen(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close() // File duplicates it
	return l.File()
}
