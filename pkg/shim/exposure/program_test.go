package exposure_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/exposure"
)

// files is a view whose trees are directories.
type files struct {
	view

	dirs map[string]string
}

func (f *files) Tree(path string, _ bool) (*os.File, error) { return os.Open(f.dirs[path]) }

// programs makes files: those that end with / are directories, those with -> links.
func programs(t *testing.T, all map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range all {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, link := strings.CutPrefix(content, "->"); link {
			err = errors.Join(err, os.Symlink(target, path))
		} else if content == "/" {
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		} else {
			mode := os.FileMode(0o755)
			if strings.HasPrefix(content, "data") {
				mode = 0o644
			}
			err = errors.Join(err, os.WriteFile(path, []byte(content), mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestFindProgram: what the container's files tell, through its links and mounts, and nothing of the host.
func TestFindProgram(t *testing.T) {
	root := programs(t, map[string]string{
		"usr/bin/sh": "ELF", "bin": "->usr/bin", "data/plain": "data", "dir": "/", "data/script": "#!/usr/bin/sh -e\n", "data/broken": "#! /no/such\n",
		"data/relative": "#!sh\n", "loop": "->loop", "out": "->/../../../../bin/sh", "host": "->" + os.DevNull, "into": "->/mnt/tool", "guest": "->/proc/self/exe",
		"run": "/", "var/run": "->/run",
	})
	mounted := programs(t, map[string]string{"tool": "ELF", "up": "->../usr/bin/sh", "abs": "->/usr/bin/sh"})
	single := filepath.Join(mounted, "tool")
	e, err := exposure.Expose(t.Context(), &files{dirs: map[string]string{"c/rootfs": root, ".volumes/1": mounted, ".volumes/2": single, ".volumes/3": mounted}}, &bundle.Bundle{Dir: "/b", Spec: &specs.Spec{
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Type: "bind", Source: mounted, Destination: "/mnt"},
			{Type: "bind", Source: single, Destination: "/made/by/guest"},
			{Type: "bind", Source: mounted, Destination: "/var/run/m"},
		},
	}}, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	const missing, path = ": no such file or directory", "executable file not found in $PATH"
	for program, want := range map[string]string{
		"/usr/bin/sh": "", "/bin/sh": "", "usr/bin/sh": "", "../dir/../usr/bin/sh": "", "sh": "", "tool": "", "/mnt/tool": "", "/into": "", "/made/by/guest": "",
		"/mnt/up": "", "/mnt/abs": "", "/out": "", "/run/m/tool": "", "/var/run/m/tool": "", "/data/script": "", "/data/relative": "",
		"/proc/self/exe": "", "/guest": "", "/proc/../usr/bin/sh": "",
		"/no/such": "stat /no/such" + missing, "/mnt/none": "stat /mnt/none" + missing, "/host": "stat /host" + missing, "/made/by/none": "stat /made/by/none" + missing,
		"/made": "stat /made" + missing, "plain": path, "nosuch": path, "/data/plain": "permission denied", "/dir": "is a directory, or no regular file",
		"/data/plain/x": "stat /data/plain/x: not a directory", "/loop": "stat /loop: too many levels of symbolic links",
		"/data/broken": "its interpreter /no/such" + missing, "/": "is a directory, or no regular file",
	} {
		err := e.FindProgram(&specs.Process{Args: []string{program}, Cwd: "/", Env: []string{"PATH=/none:/bin:mnt:/data"}})
		status, refused := client.ExitStatus(err)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", program, err)
			}
			continue
		}
		code := uint8(126)
		if strings.Contains(want, "no such file") && program != "/data/broken" || strings.Contains(want, "PATH") || program == "/loop" {
			code = 127
		}
		if !refused || status != code || !errdefs.IsInvalidArgument(err) || err.Error() != `exec: "`+program+`": `+want {
			t.Errorf("%s: %v, status %d; want %s", program, err, status, want)
		}
	}
	if err := e.FindProgram(&specs.Process{Args: []string{"any"}}); err != nil {
		t.Errorf("without a search path: %v", err)
	}
}
