package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
)

// probed is a driver that can be asked, but starts nothing.
type probed struct {
	hypervisor.Driver
	caps hypervisor.Capabilities
	err  error
}

func (p probed) Probe(context.Context, string) (hypervisor.Capabilities, error) { return p.caps, p.err }

// script writes a program that prints text.
func script(t *testing.T, path, text string) {
	t.Helper()
	writeFile(t, path, "#!/bin/sh\necho '"+text+"'\n", 0o755)
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// testHost is a host on which everything is as it should be, below a directory.
func testHost(t *testing.T) (c *checker, out *bytes.Buffer, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "check") // the path of a state directory must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	script(t, dir+"/qemu", "")
	script(t, dir+"/containerd", "containerd github.com/containerd/containerd v2.4.2 abc")
	script(t, dir+"/virtiofsd", "virtiofsd 1.14.0+ccv2")
	script(t, dir+"/"+shimName, shimName+":\n  Version:  v1.2.3")
	writeFile(t, dir+"/kernel", strings.Repeat("k", 1<<20), 0o644)
	writeFile(t, dir+"/image", strings.Repeat("i", 1<<19), 0o644)
	writeFile(t, dir+"/kvm", "", 0o644)
	writeFile(t, dir+"/cpuinfo", "flags\t\t: fpu vmx\n", 0o644)
	writeFile(t, dir+"/config.toml", strings.ReplaceAll(`state_dir = "DIR/state"
hypervisor.path = "DIR/qemu"
guest.kernel = "DIR/kernel"
guest.image = "DIR/image"
share.virtiofsd = "DIR/virtiofsd"
`, "DIR", dir), 0o644)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	out = &bytes.Buffer{}
	return &checker{
		out: out, path: dir + "/config.toml",
		driver: probed{caps: hypervisor.Capabilities{
			Version: "7.2.22", Machines: []string{"q35"}, Seccomp: true, VirtioFS: true, Virtio9P: true,
		}},
		proc: dir + "/proc",
		host: qemu.Host{KVM: dir + "/kvm", CPUInfo: dir + "/cpuinfo"},
	}, out, dir
}

// line returns the line of one check, without the directory of the test.
func line(out, name, dir string) string {
	for l := range strings.Lines(out) {
		if fields := strings.SplitN(l, "  ", 3); len(fields) == 3 && strings.Contains(l[:20], " "+name+" ") {
			return strings.TrimSpace(strings.ReplaceAll(l, dir, "DIR"))
		}
	}
	return ""
}

// brokenHosts are hosts with one thing wrong, and what the check of it says.
var brokenHosts = []struct {
	name  string
	wreck func(t *testing.T, c *checker, dir string)
	check string
	want  string
}{
	{
		name: "no qemu", check: "qemu", want: "FAIL  qemu           no such binary",
		wreck: func(_ *testing.T, c *checker, _ string) { c.driver = probed{err: errors.New("no such binary")} },
	},
	{
		name: "old qemu", check: "qemu", want: "FAIL  qemu           DIR/qemu is version 7.1.9",
		wreck: func(_ *testing.T, c *checker, _ string) {
			c.driver = probed{caps: hypervisor.Capabilities{Version: "7.1.9", Seccomp: true}}
		},
	},
	{
		name: "no seccomp", check: "qemu", want: "FAIL  qemu           DIR/qemu was built without -sandbox",
		wreck: func(_ *testing.T, c *checker, _ string) {
			c.driver = probed{caps: hypervisor.Capabilities{Version: "9.0.0"}}
		},
	},
	{
		name: "no machine", check: "machine type", want: "FAIL  machine type   this QEMU has no machine q35",
		wreck: func(_ *testing.T, c *checker, _ string) {
			c.driver = probed{caps: hypervisor.Capabilities{Version: "9.0.0", Machines: []string{"microvm"}}}
		},
	},
	{
		name: "no virtiofs", check: "share", want: "FAIL  share          this QEMU has no vhost-user-fs device",
		wreck: func(_ *testing.T, c *checker, _ string) {
			c.driver = probed{caps: hypervisor.Capabilities{Version: "9.0.0"}}
		},
	},
	{
		name: "no kvm", check: "accelerator",
		want:  "warn  accelerator    tcg: guests are emulated, which is 5 to 20 times slower (open DIR/none: no such file or directory)",
		wreck: func(_ *testing.T, c *checker, dir string) { c.host.KVM = dir + "/none" },
	},
	{
		name: "kvm wanted", check: "accelerator", want: "FAIL  accelerator    use kvm: open DIR/none: no such file or directory",
		wreck: func(t *testing.T, c *checker, dir string) {
			c.host.KVM = dir + "/none"
			appendTo(t, c.path, "hypervisor.accelerator = \"kvm\"\n")
		},
	},
	{
		name: "no kernel", check: "guest kernel", want: "FAIL  guest kernel   open DIR/kernel: no such file or directory",
		wreck: func(t *testing.T, _ *checker, dir string) { remove(t, dir+"/kernel") },
	},
	{
		name: "empty image", check: "guest image", want: "FAIL  guest image    DIR/image is not a file with content",
		wreck: func(t *testing.T, _ *checker, dir string) { writeFile(t, dir+"/image", "", 0o644) },
	},
	{
		name: "no virtiofsd", check: "virtiofsd", want: "FAIL  virtiofsd      DIR/virtiofsd: not found; install virtiofsd or set [share] virtiofsd",
		wreck: func(t *testing.T, _ *checker, dir string) { remove(t, dir+"/virtiofsd") },
	},
	{
		name: "another virtiofsd", check: "virtiofsd", want: `FAIL  virtiofsd      DIR/virtiofsd: not a virtiofsd, it calls itself "hello": invalid argument`,
		wreck: func(t *testing.T, _ *checker, dir string) { script(t, dir+"/virtiofsd", "hello") },
	},
	{
		name: "the virtiofsd in C", check: "virtiofsd",
		want: "warn  virtiofsd      DIR/virtiofsd, virtiofsd version 7.2.22 (Debian), the one in C, which is no longer maintained: access control lists, O_TMPFILE and chattr cannot be used, and small files are slower",
		wreck: func(t *testing.T, _ *checker, dir string) {
			script(t, dir+"/virtiofsd", "virtiofsd version 7.2.22 (Debian)")
		},
	},
	{
		name: "the distribution's virtiofsd", check: "virtiofsd",
		want:  "warn  virtiofsd      DIR/virtiofsd, virtiofsd 1.13.2: access control lists, O_TMPFILE and chattr cannot be used, and small files are slower",
		wreck: func(t *testing.T, _ *checker, dir string) { script(t, dir+"/virtiofsd", "virtiofsd 1.13.2") },
	},
	{
		name: "state directory in the way", check: "state dir", want: "FAIL  state dir      mkdir DIR/state: not a directory",
		wreck: func(t *testing.T, _ *checker, dir string) { writeFile(t, dir+"/state", "", 0o644) },
	},
	{
		name: "no shim", check: "shim", want: "warn  shim           containerd-shim-cc-v2 is not on the PATH of this shell",
		wreck: func(t *testing.T, _ *checker, _ string) { t.Setenv("PATH", "/bin") },
	},
	{
		name: "broken shim", check: "shim", want: "FAIL  shim           DIR/containerd-shim-cc-v2 -v: exit status 1",
		wreck: func(t *testing.T, _ *checker, dir string) {
			writeFile(t, dir+"/"+shimName, "#!/bin/sh\nexit 1\n", 0o755)
		},
	},
	{
		name: "bad configuration", check: "configuration", want: "FAIL  configuration  DIR/config.toml:6: nonsense: there is no such key",
		wreck: func(t *testing.T, c *checker, _ string) { appendTo(t, c.path, "nonsense = 1\n") },
	},
}

func TestHostChecks(t *testing.T) {
	for _, tt := range brokenHosts {
		t.Run(tt.name, func(t *testing.T) {
			c, out, dir := testHost(t)
			tt.wreck(t, c, dir)
			c.hostChecks(t.Context())
			got := line(out.String(), tt.check, dir)
			if got, _, _ = strings.Cut(got, ": unavailable"); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if _, rest, _ := strings.Cut(out.String(), strings.Fields(tt.want)[0]); !strings.Contains(rest, "fix: ") {
				t.Errorf("no fix in:\n%s", out)
			}
		})
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(old)+text, 0o644)
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestHostChecksPass(t *testing.T) {
	c, out, dir := testHost(t)
	c.hostChecks(t.Context())
	if os.Geteuid() == 0 && c.failed {
		t.Error("failed")
	}
	for name, want := range map[string]string{
		"configuration": "ok    configuration  DIR/config.toml",
		"qemu":          "ok    qemu           DIR/qemu, version 7.2.22",
		"accelerator":   "ok    accelerator    kvm",
		"guest kernel":  "ok    guest kernel   DIR/kernel, 1.0 MiB",
		"virtiofsd":     "ok    virtiofsd      DIR/virtiofsd, virtiofsd 1.14.0+ccv2",
		"shim":          "ok    shim           DIR/containerd-shim-cc-v2, version v1.2.3",
	} {
		if got := line(out.String(), name, dir); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	if _, err := os.Stat(dir + "/state"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory was left behind: %v", err)
	}
}

func TestCheckPrivileges(t *testing.T) {
	if checkPrivileges(0).verdict != verdictOK || checkPrivileges(1000).verdict != verdictFail {
		t.Error("root must pass, others must not")
	}
}

func TestCheckVhost(t *testing.T) {
	device := filepath.Join(t.TempDir(), "vhost-net")
	if f := checkVhost(device); f.verdict != verdictWarn || !strings.Contains(f.fix, "vhost_net") {
		t.Errorf("got %+v without the device", f)
	}
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f := checkVhost(device); f.verdict != verdictOK || f.detail != device {
		t.Errorf("got %+v with it", f)
	}
}

func TestOlderThan(t *testing.T) {
	for _, tt := range []struct {
		version string
		want    bool
	}{
		{"7.2.0", false},
		{"7.2", false},
		{"7.10.1", false},
		{"10.0.0", false},
		{"8.0.0-rc1", false},
		{"7.1.99", true},
		{"6.2.0", true},
		{"7", true},
		{"", true},
	} {
		if got := olderThan(tt.version, minQEMU); got != tt.want {
			t.Errorf("%q: %v", tt.version, got)
		}
	}
}

func TestTempDirKeepsWhatWasThere(t *testing.T) {
	root := t.TempDir()
	dir, remove, err := tempDir(filepath.Join(root, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(dir) != filepath.Join(root, "a", "b") {
		t.Errorf("made %s", dir)
	}
	writeFile(t, filepath.Join(root, "a", "other"), "", 0o644)
	remove()
	entries, err := os.ReadDir(filepath.Join(root, "a"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "other" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestParseSmaps(t *testing.T) {
	const text = `55d0c0000000-55d0c0100000 r--p 00000000 fe:00 123    /usr/bin/qemu-system-x86_64
Size:               1024 kB
Pss:                 100 kB
Pss_Dirty:            50 kB
7f0000000000-7f0020000000 rw-s 00000000 00:01 4     /memfd:memory-backend-memfd (deleted)
Size:             524288 kB
Pss:                4000 kB
VmFlags: rd wr sh
7f1000000000-7f1010000000 rw-p 00000000 00:00 0
Pss:                  10 kB
Pss:                 bad kB
`
	if diff := cmp.Diff(memory{total: 4110 << 10, guest: 4000 << 10}, parseSmaps(text, 1<<30), cmp.AllowUnexported(memory{})); diff != "" {
		t.Errorf("by name (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(memory{total: 4110 << 10, guest: 4010 << 10}, parseSmaps(text, 256<<20), cmp.AllowUnexported(memory{})); diff != "" {
		t.Errorf("by size (-want +got):\n%s", diff)
	}
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		stat        string
		pid, parent int
		ok          bool
	}{
		{"12 (a) S 3 4", 12, 3, true},
		{"12 (a) b) (c) S 3 4", 12, 3, true},
		{"12 (a) S", 0, 0, false},
		{"x (a) S 3", 0, 0, false},
		{"garbage", 0, 0, false},
		{"", 0, 0, false},
	} {
		pid, parent, ok := parseStat(tt.stat)
		if pid != tt.pid || parent != tt.parent || ok != tt.ok {
			t.Errorf("%q: %d %d %v", tt.stat, pid, parent, ok)
		}
	}
}

func TestMemoryOfSelf(t *testing.T) {
	m, err := memoryOf(1, os.Getpid())
	if err != nil || m.total < 1<<20 || m.guest != 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestPodFixed(t *testing.T) {
	for bytes, want := range map[int64]int64{1 << 20: 16, 8 << 20: 32, 240 << 20: 256, 243 << 20: 256, 248 << 20: 272} {
		if got := podFixed(bytes); got != want {
			t.Errorf("%d MiB: %d, want %d", bytes>>20, got, want)
		}
	}
}
