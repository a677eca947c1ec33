package exposure_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
		"data/closed": "#!/data/plain\n", "data/dir": "#!/dir\n", "twice/twice": "#! /no/such\n", "data/twice": "ELF",
		"data/relative": "#!sh\n", "loop": "->loop", "out": "->/../../../../bin/sh", "host": "->" + os.DevNull, "into": "->/mnt/tool", "guest": "->/proc/self/exe",
		"run": "/", "var/run": "->/run",
	})
	if err := unix.Mkfifo(filepath.Join(root, "run/pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
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
		"/made": "stat /made" + missing, "plain": path, "nosuch": path, "/data/plain": "permission denied", "/dir": "is a directory", "/run/pipe": "permission denied", "broken": "*exec /data/broken: no such file or directory (interpreter /no/such)",
		"/data/plain/x": "stat /data/plain/x: not a directory", "/loop": "stat /loop: too many levels of symbolic links",
		"/": "is a directory", "/data/broken": "*exec /data/broken: no such file or directory (interpreter /no/such)", "data/broken": "*exec data/broken: no such file or directory (interpreter /no/such)",
		"/data/closed": "*exec /data/closed: permission denied (interpreter /data/plain)", "/data/dir": "*exec /data/dir: permission denied (interpreter /dir)",
		"twice": "",
	} {
		err := e.FindProgram(t.Context(), &specs.Process{Args: []string{program}, Cwd: "/", Env: []string{"PATH=/none:/twice:/bin:mnt:/data:/twice"}})
		status, refused := client.ExitStatus(err)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", program, err)
			}
			continue
		}
		code := uint8(126)
		if strings.Contains(want, "no such file") || strings.Contains(want, "PATH") || program == "/loop" {
			code = 127
		}
		want, kernels := strings.CutPrefix(want, "*")
		if !kernels {
			want = `exec: "` + program + `": ` + want
		}
		if !refused || status != code || !errdefs.IsInvalidArgument(err) || err.Error() != want {
			t.Errorf("%s: %v, status %d; want %s", program, err, status, want)
		}
	}
	if err := e.FindProgram(t.Context(), &specs.Process{Args: []string{"any"}}); err != nil {
		t.Errorf("without a search path: %v", err)
	}
}

// TestParents: ".." is the parent of the directory that a link has led to.
func TestParents(t *testing.T) {
	root := programs(t, map[string]string{
		"opt/app/v1": "/", "opt/app/bin/tool": "ELF", "srv": "->opt/app/v1", "link": "->srv/../bin/tool", "script": "#!/srv/../bin/tool\n", "tool": "data",
	})
	e := exposed(t, root)
	for name, tt := range map[string]struct{ program, cwd, path, want string }{
		"absolute":         {program: "/srv/../bin/tool", cwd: "/"},
		"relative":         {program: "../bin/tool", cwd: "/srv"},
		"link":             {program: "/link", cwd: "/"},
		"interpreter":      {program: "/script", cwd: "/"},
		"search":           {program: "tool", cwd: "/", path: "/srv/../bin"},
		"relative search":  {program: "tool", cwd: "/srv", path: "../bin"},
		"above the root":   {program: "/../../opt/app/bin/tool", cwd: "/"},
		"made by guest":    {program: "../link", cwd: "/no/such"},
		"lexically":        {program: "/srv/../tool", cwd: "/", want: "stat /srv/../tool: no such file or directory"},
		"below a file":     {program: "/link/../tool", cwd: "/", want: "stat /link/../tool: not a directory"},
		"a slash":          {program: "/link/", cwd: "/", want: "stat /link/: not a directory"},
		"out of a missing": {program: "/no/../link", cwd: "/", want: "stat /no/../link: no such file or directory"},
	} {
		err := e.FindProgram(t.Context(), &specs.Process{Args: []string{tt.program}, Cwd: tt.cwd, Env: []string{"PATH=" + tt.path}})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasSuffix(err.Error(), ": "+tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestBound: what takes too many steps is left to the guest, and nobody waits for it in vain.
func TestBound(t *testing.T) {
	deep := strings.Repeat("d/", 1900)
	dir := programs(t, map[string]string{"dir": "/"})
	root, err := os.OpenRoot(dir)
	if err == nil {
		err = root.MkdirAll(deep+"end", 0o755)
	}
	for i := range 39 {
		err = errors.Join(err, root.Symlink("/"+deep+"l"+strconv.Itoa(i+1), deep+"l"+strconv.Itoa(i)))
	}
	if err = errors.Join(err, root.Close()); err != nil {
		t.Fatal(err)
	}
	e := exposed(t, dir)
	find := func(ctx context.Context, path string) error {
		return e.FindProgram(ctx, &specs.Process{Args: []string{"none"}, Cwd: "/", Env: []string{"PATH=" + path}})
	}
	if _, refused := client.ExitStatus(find(t.Context(), "/"+deep)); !refused {
		t.Error("a deep directory is not searched")
	}
	for name, path := range map[string]string{
		"links": "/" + deep + "l0", "entries": strings.Repeat("/dir:", 5000),
	} {
		if err := find(t.Context(), path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := find(ctx, "/dir"); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func exposed(t *testing.T, root string) *exposure.Exposure {
	t.Helper()
	e, err := exposure.Expose(t.Context(), &files{dirs: map[string]string{"c/rootfs": root}}, &bundle.Bundle{Dir: "/b", Spec: new(specs.Spec)}, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestLongName: runc passes over a name that no file can have, as over one that is not there.
func TestLongName(t *testing.T) {
	e := exposed(t, programs(t, map[string]string{"bin": "/"}))
	long, longer := strings.Repeat("n", 256), strings.Repeat("d/", 2048)
	for program, want := range map[string]string{
		long: "executable file not found in $PATH", "/" + long: "stat /" + long + ": file name too long", "/" + longer: "stat /" + longer + ": file name too long",
	} {
		err := e.FindProgram(t.Context(), &specs.Process{Args: []string{program}, Cwd: "/", Env: []string{"PATH=/bin"}})
		status, _ := client.ExitStatus(err)
		code := uint8(126)
		if program == long {
			code = 127
		}
		if err == nil || err.Error() != `exec: "`+program+`": `+want || status != code {
			t.Errorf("%d bytes: %v, status %d", len(program), err, status)
		}
	}
}
