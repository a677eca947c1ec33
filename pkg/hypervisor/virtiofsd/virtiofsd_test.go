package virtiofsd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const realBinary = "/usr/lib/qemu/virtiofsd"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCommandLine(t *testing.T) {
	tests := []struct {
		name, dir string
		kind      kind
		want      string
	}{
		{"C", "/run/pod", kindC, "-f --fd=3 --thread-pool-size=0 -o source=/run/pod -o cache=auto -o sandbox=namespace -o no_posix_lock,no_flock -o log_level=warn -o announce_submounts"},
		{"C, escaped", `/run/a,b\c`, kindC, `-f --fd=3 --thread-pool-size=0 -o source=/run/a\,b\\c -o cache=auto -o sandbox=namespace -o no_posix_lock,no_flock -o log_level=warn -o announce_submounts`},
		{"Rust", `/run/a,b\c`, kindRust, `--fd=3 --thread-pool-size=0 --shared-dir=/run/a,b\c --cache=auto --sandbox=namespace --log-level=warn --announce-submounts`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, strings.Join(commandLine(Options{SharedDir: tt.dir}, tt.kind), " ")); diff != "" {
				t.Errorf("command line (-want +got):\n%s", diff)
			}
		})
	}
}

// script is a program that calls itself what out says, and else runs run.
func script(t *testing.T, out, run string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "virtiofsd")
	text := "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '" + out + "'; exit; fi\n" + run + "\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDetect(t *testing.T) {
	tests := []struct {
		name, out string
		want      kind
		class     error
	}{
		{"QEMU's", "virtiofsd version 7.2.22 (Debian 1:7.2)", kindC, nil},
		{"Rust", "virtiofsd 1.10.0", kindRust, nil},
		{"old Rust", "virtiofsd backend 1.1.0", kindRust, nil},
		{"other", "sleep (GNU coreutils) 9.1", 0, errdefs.ErrInvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := detect(t.Context(), script(t, tt.out, ""))
			if got != tt.want || !errors.Is(err, tt.class) {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

// options returns good ones for a real server in a temporary directory.
func options(t *testing.T) Options {
	t.Helper()
	if _, err := os.Stat(realBinary); err != nil {
		t.Skipf("no virtiofsd: %v; install qemu-system-common or virtiofsd", err)
	}
	dir, err := os.MkdirTemp("", "ccv2-fs") // shorter than t.TempDir: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Options{Binary: realBinary, SharedDir: t.TempDir(), Socket: filepath.Join(dir, "fs.sock")}
}

// startable returns options of a server that is started, which keeps capabilities.
func startable(t *testing.T) Options {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to have capabilities")
	}
	return options(t)
}

func TestStartErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Options)
		class  error
		want   string
	}{
		{"no binary", func(o *Options) { o.Binary = "/no/virtiofsd" }, errdefs.ErrNotFound, "install virtiofsd"},
		{"no directory", func(o *Options) { o.SharedDir = "/no/dir" }, errdefs.ErrNotFound, "/no/dir"},
		{"relative directory", func(o *Options) { o.SharedDir = "a" }, errdefs.ErrInvalidArgument, "absolute"},
		{"directory is a file", func(o *Options) { o.SharedDir = realBinary }, errdefs.ErrInvalidArgument, "not a directory"},
		{"relative socket", func(o *Options) { o.Socket = "a" }, errdefs.ErrInvalidArgument, "absolute"},
		{"long socket", func(o *Options) { o.Socket = "/" + strings.Repeat("x", 107) }, errdefs.ErrInvalidArgument, "108 bytes"},
		{"socket in use", func(o *Options) { o.Socket = o.SharedDir }, unix.EADDRINUSE, "bind"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := options(t)
			tt.change(&opts)
			_, err := Start(t.Context(), opts)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "start virtiofsd: ") {
				t.Errorf("error %v, want class %v and %q", err, tt.class, tt.want)
			}
		})
	}
}

func TestKill(t *testing.T) {
	opts := startable(t)
	server, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := server.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.Exit().Signal; got != int(unix.SIGKILL) {
		t.Errorf("signal %d", got)
	}
	if err := unix.Kill(server.PID(), 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d: %v", server.PID(), err)
	}
	if _, err := os.Stat(opts.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket: %v", err)
	}
}

// TestEndsWithClient connects, as a VM does, and goes away.
func TestEndsWithClient(t *testing.T) {
	opts := startable(t)
	server, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	conn, err := net.Dial("unix", opts.Socket)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	select {
	case <-server.Done():
	case <-time.After(10 * time.Second):
		t.Error("the server lives on without its client")
	}
}

func TestExit(t *testing.T) {
	opts := startable(t)
	opts.Binary = script(t, "virtiofsd 1.10.0", "echo no such luck >&2; exit 4")
	server, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	<-server.Done()
	if got := server.Exit(); got.Code != 4 || got.Stderr != "no such luck" {
		t.Errorf("exit %+v", got)
	}
	if err := server.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
