//go:build e2e

package e2e_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// cannotRun are programs that cannot be run, with what the error says.
var cannotRun = []struct {
	name, program, want string
}{
	{"missing in PATH", "nosuch", `exec: "nosuch": executable file not found in $PATH`},
	{"missing", "/no/such", `exec: "/no/such": stat /no/such: no such file or directory`},
	{"no permission", "/programs/plain", `exec: "/programs/plain": permission denied`},
	{"no permission in PATH", "plain", `exec: "plain": executable file not found in $PATH`},
	{"directory", "/programs", `exec: "/programs": is a directory`},
	{"below a file", "/programs/plain/x", `exec: "/programs/plain/x": stat /programs/plain/x: not a directory`},
}

// notExecuted are programs that the kernel does not execute, with what their process
// says before it ends with 255.
var notExecuted = map[string]string{
	"/programs/text":    "/programs/text: exec format error",
	"../programs/text":  "../programs/text: exec format error",
	"text":              "/programs/text: exec format error",
	"/programs/empty":   "/programs/empty: exec format error",
	"/programs/script":  "/programs/script: no such file or directory",
	"/programs/dos":     "/programs/dos: no such file or directory",
	"/programs/closed":  "/programs/closed: permission denied",
	"/programs/another": "/programs/another: exec format error",
	"/programs/cut":     "/programs/cut: exec format error",
	"/programs/loader":  "/programs/loader: no such file or directory",
}

// programs makes a directory of files that are not programs and returns the option
// that mounts it.
func programs(t *testing.T) oci.SpecOpts {
	t.Helper()
	dir := t.TempDir()
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	self.Close()
	native := withLoader(t, self.Machine, "/no/such")
	for name, content := range map[string][]byte{
		"text": []byte("text\n"), "empty": {}, "script": []byte("#!/no/such\n"), "dos": []byte("#!/bin/sh\r\n"), "closed": []byte("#!/programs/plain\n"),
		"another": withLoader(t, elf.EM_S390, "/no/such"), "cut": native[:binary.Size(elf.Header64{})], "loader": native,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return oci.Compose(
		oci.WithMounts([]specs.Mount{{Type: "bind", Source: dir, Destination: "/programs", Options: []string{"rbind", "ro"}}}),
		oci.WithEnv([]string{"PATH=/bin:/programs"}),
	)
}

// withLoader is a program for a machine that names its dynamic loader, and nothing else.
func withLoader(t *testing.T, machine elf.Machine, loader string) []byte {
	t.Helper()
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: uint64(binary.Size(elf.Header64{})), Phnum: 1,
		Ehsize: uint16(binary.Size(elf.Header64{})), Phentsize: uint16(binary.Size(elf.Prog64{})),
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	name := append([]byte(loader), 0)
	interpreter := elf.Prog64{
		Type: uint32(elf.PT_INTERP), Off: header.Phoff + uint64(header.Phentsize), Filesz: uint64(len(name)), Memsz: uint64(len(name)),
	}
	var b bytes.Buffer
	for _, part := range []any{header, interpreter, name} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestCannotRun wants the words of runc for a program that cannot be run: docker
// looks for some of them to tell 126, 127 and 125. Clients that read the output to
// its end before they delete, as containerd's own does, are not held up.
func TestCannotRun(t *testing.T) {
	besideRunc(t, func(t *testing.T, runtime, id string) {
		mount := programs(t)
		for i, tt := range cannotRun {
			var out harness.Buffer
			container := shared.ContainerOn(t, runtime, fmt.Sprintf("%s-%d", id, i), []string{tt.program}, mount)
			_, err := shared.NewTask(t, container, harness.Streams{Stdout: &out, Stderr: &out})
			wantReason(t, "create: "+tt.name, err, tt.want)
		}
		for i, name := range []string{"text", "/programs/script", "/programs/another"} {
			var out, errs harness.Buffer
			init := shared.RunningOn(t, runtime, fmt.Sprintf("%s-init%d", id, i), harness.Streams{Stdout: &out, Stderr: &errs}, []string{name}, mount)
			if status := shared.Finish(t, init); status != 255 || out.String() != "" || errs.String() != "exec "+notExecuted[name]+"\n" {
				t.Errorf("run %s: status %d, %q, %q", name, status, out.String(), errs.String())
			}
		}
		task := shared.RunningOn(t, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, mount)
		for i, tt := range cannotRun {
			for _, terminal := range []bool{false, true} {
				err := failingExec(t, task, fmt.Sprintf("e%d-%v", i, terminal), func(p *specs.Process) {
					p.Args, p.Terminal = []string{tt.program}, terminal
				})
				wantReason(t, "exec: "+tt.name, err, tt.want)
			}
		}
		err := failingExec(t, task, "cwd", func(p *specs.Process) { p.Args, p.Cwd = []string{"true"}, "/no/such" })
		wantReason(t, "exec: missing cwd", err, "no such file or directory")
		for name, want := range notExecuted {
			wantNotExecuted(t, task, name, want)
		}
		shared.KillTask(t, task)
	})
}

// wantNotExecuted wants an exec to have run, and to have told its user why the kernel
// does not execute the program.
func wantNotExecuted(t *testing.T, task client.Task, name, want string) {
	t.Helper()
	spec, err := task.Spec(shared.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, terminal := range []bool{false, true} {
		process := *spec.Process
		process.Args, process.Terminal = []string{name}, terminal
		var out, errs harness.Buffer
		p, err := shared.AddExec(task, "not-executed", harness.Streams{Stdout: &out, Stderr: &errs}, &process)
		if err == nil {
			err = p.Start(shared.Context())
		}
		if err != nil {
			t.Errorf("exec %s: %v", name, err)
			continue
		}
		status := shared.Finish(t, p)
		wantOut, wantErrs := "", "exec "+want+"\n"
		if terminal {
			wantOut, wantErrs = "exec "+want+"\r\n", ""
		}
		if status != 255 || out.String() != wantOut || errs.String() != wantErrs {
			t.Errorf("exec %s, terminal %v: status %d, %q, %q, want 255, %q", name, terminal, status, out.String(), errs.String(), want)
		}
	}
}

// failingExec starts a process that cannot be, with clients that read what it
// writes, and returns why.
func failingExec(t *testing.T, task client.Task, id string, change func(*specs.Process)) (reason error) {
	t.Helper()
	ctx := shared.Context()
	spec, err := task.Spec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := *spec.Process
	change(&process)
	var out harness.Buffer
	p, err := shared.AddExec(task, id, harness.Streams{Stdin: strings.NewReader("x"), Stdout: &out, Stderr: &out}, &process)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- p.Start(ctx) }()
	select {
	case reason = <-failed:
	case <-time.After(harness.Patience):
		t.Fatalf("start of %q has not returned: its output has not ended", process.Args)
	}
	if _, err := p.Delete(ctx); err != nil {
		t.Error(err)
	}
	if out.String() != "" {
		t.Errorf("%q has output %q", process.Args, out.String())
	}
	return reason
}

// wantReason wants an error in the words of runc, without what is around them.
func wantReason(t *testing.T, what string, err error, want string) {
	t.Helper()
	t.Logf("%s: %v", what, err)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), `"level"`) {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}
