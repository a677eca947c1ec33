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

// Real servers: the one that is built, and the distribution's.
var (
	builtBinary, _     = filepath.Abs("../../../build/virtiofsd/virtiofsd")
	distributionBinary = "/usr/lib/qemu/virtiofsd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCommandLine(t *testing.T) {
	tests := []struct {
		name, dir string
		version   Version
		want      string
	}{
		{"C", "/run/pod", Version{Legacy: true}, "-f --fd=3 --thread-pool-size=0 -o source=/run/pod -o cache=auto -o sandbox=namespace -o no_posix_lock,no_flock -o log_level=warn -o announce_submounts -o xattr -o xattrmap=MAP:unsupported:all:system.posix_acl_:system.posix_acl_::ok:all::: -o killpriv_v2"},
		{"C, escaped", `/run/a,b\c`, Version{Legacy: true}, `-f --fd=3 --thread-pool-size=0 -o source=/run/a\,b\\c -o cache=auto -o sandbox=namespace -o no_posix_lock,no_flock -o log_level=warn -o announce_submounts -o xattr -o xattrmap=MAP:unsupported:all:system.posix_acl_:system.posix_acl_::ok:all::: -o killpriv_v2`},
		{"Rust", `/run/a,b\c`, Version{}, `--fd=3 --thread-pool-size=0 --shared-dir=/run/a,b\c --cache=auto --sandbox=namespace --log-level=warn --announce-submounts --inode-file-handles=never --xattr --killpriv-v2 --xattrmap=MAP:unsupported:all:system.posix_acl_:system.posix_acl_::ok:all:::`},
		{"ours", `/run/pod`, Version{Own: true}, `--fd=3 --thread-pool-size=0 --shared-dir=/run/pod --cache=auto --sandbox=namespace --log-level=warn --announce-submounts --inode-file-handles=never --xattr --killpriv-v2 --xattrmap=MAP:ok:all::: --posix-acl=auto --preserve-noatime --own-mounts=root`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.ReplaceAll(tt.want, "MAP", xattrMap)
			if diff := cmp.Diff(want, strings.Join(commandLine(Options{SharedDir: tt.dir, OwnMounts: "root"}, tt.version), " ")); diff != "" {
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

func TestProbe(t *testing.T) {
	tests := []struct {
		name, out string
		want      Version
		class     error
	}{
		{"QEMU's", "virtiofsd version 7.2.22 (Debian 1:7.2)", Version{Line: "virtiofsd version 7.2.22 (Debian 1:7.2)", Legacy: true}, nil},
		{"Rust", "virtiofsd 1.10.0", Version{Line: "virtiofsd 1.10.0"}, nil},
		{"ours", "virtiofsd 1.14.0+ccv2", Version{Line: "virtiofsd 1.14.0+ccv2", Own: true}, nil},
		{"old Rust", "virtiofsd backend 1.1.0", Version{Line: "virtiofsd backend 1.1.0"}, nil},
		{"other", "sleep (GNU coreutils) 9.1", Version{}, errdefs.ErrInvalidArgument},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Probe(t.Context(), script(t, tt.out, ""))
			if got != tt.want || !errors.Is(err, tt.class) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

// options returns good ones for a real server in a temporary directory.
func options(t *testing.T, binary string) Options {
	t.Helper()
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("no virtiofsd: %v; run make virtiofsd, and install qemu-system-common or virtiofsd", err)
	}
	dir, err := os.MkdirTemp("", "ccv2-fs") // shorter than t.TempDir: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Options{Binary: binary, SharedDir: t.TempDir(), Socket: filepath.Join(dir, "fs.sock")}
}

// startable returns options of a server that is started, which keeps capabilities.
func startable(t *testing.T, binary string) Options {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to have capabilities")
	}
	return options(t, binary)
}

// withEach runs a test with each of the real servers.
func withEach(t *testing.T, test func(*testing.T, Options)) {
	for name, binary := range map[string]string{"Built": builtBinary, "Distribution": distributionBinary} {
		t.Run(name, func(t *testing.T) { test(t, startable(t, binary)) })
	}
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
		{"directory is a file", func(o *Options) { o.SharedDir = "/bin/sh" }, errdefs.ErrInvalidArgument, "not a directory"},
		{"relative socket", func(o *Options) { o.Socket = "a" }, errdefs.ErrInvalidArgument, "absolute"},
		{"long socket", func(o *Options) { o.Socket = "/" + strings.Repeat("x", 107) }, errdefs.ErrInvalidArgument, "108 bytes"},
		{"socket in use", func(o *Options) { o.Socket = o.SharedDir }, unix.EADDRINUSE, "bind"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts := options(t, builtBinary)
			tt.change(&opts)
			_, err := Start(t.Context(), opts)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "start virtiofsd: ") {
				t.Errorf("error %v, want class %v and %q", err, tt.class, tt.want)
			}
		})
	}
}

func TestKill(t *testing.T) { withEach(t, testKill) }

func testKill(t *testing.T, opts Options) {
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
func TestEndsWithClient(t *testing.T) { withEach(t, testEndsWithClient) }

func testEndsWithClient(t *testing.T, opts Options) {
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
	opts := startable(t, builtBinary)
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
