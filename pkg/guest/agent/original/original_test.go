package original_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/original"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// rootfs has users and groups, and a link that leads out of it.
func rootfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/sh\n", "group": "root:x:0:\nwww:x:44:\nlog:x:55:web\nmore:x:66:\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func processOf(t *testing.T, raw, root string) (*specs.Process, error) {
	t.Helper()
	var p original.Process
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		t.Fatal(err)
	}
	return original.ProcessOf(&p, root)
}

func TestUsers(t *testing.T) {
	root := rootfs(t)
	for raw, want := range map[string]specs.User{
		`{"args":["sh"]}`:                                 {},
		`{"args":["sh"],"user":"web"}`:                    {UID: 33, GID: 44, AdditionalGids: []uint32{55}},
		`{"args":["sh"],"user":"33"}`:                     {UID: 33, GID: 44, AdditionalGids: []uint32{55}},
		`{"args":["sh"],"user":"1000"}`:                   {UID: 1000},
		`{"args":["sh"],"user":"1000","group":"2000"}`:    {UID: 1000, GID: 2000},
		`{"args":["sh"],"user":"web","group":"log"}`:      {UID: 33, GID: 55},
		`{"args":["sh"],"group":"log"}`:                   {GID: 55},
		`{"args":["sh"],"additionalGroups":["more","7"]}`: {AdditionalGids: []uint32{66, 7}},
	} {
		p, err := processOf(t, raw, root)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		p.User.AdditionalGids = sorted(p.User.AdditionalGids)
		want.AdditionalGids = sorted(want.AdditionalGids)
		if diff := cmp.Diff(want, p.User); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
	for _, raw := range []string{`{"args":["sh"],"user":"none"}`, `{"args":["sh"],"group":"none"}`, `{}`, `{"args":[""]}`} {
		if p, err := processOf(t, raw, root); classOf(err) != hyperstart.ClassInvalidArgument {
			t.Errorf("%s: %+v, %v", raw, p, err)
		}
	}
}

// TestUserFiles: a container decides what is at the paths of its files.
func TestUserFiles(t *testing.T) {
	root := rootfs(t)
	if err := unix.Mkfifo(filepath.Join(root, "etc/pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(passwd string) error{
		"pipe":      func(passwd string) error { return os.Symlink("pipe", passwd) },
		"directory": func(passwd string) error { return os.Mkdir(passwd, 0o755) },
		"too large": func(passwd string) error {
			return errors.Join(os.WriteFile(passwd, nil, 0o644), os.Truncate(passwd, 5<<20))
		},
		"loop": func(passwd string) error { return os.Symlink("passwd", passwd) },
	} {
		passwd := filepath.Join(root, "etc/passwd")
		if err := errors.Join(os.Rename(passwd, passwd+"-"), change(passwd)); err != nil {
			t.Fatal(err)
		}
		if p, err := processOf(t, `{"args":["sh"],"user":"33"}`, root); classOf(err) != hyperstart.ClassInvalidArgument {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
		if err := errors.Join(os.Remove(passwd), os.Rename(passwd+"-", passwd)); err != nil {
			t.Fatal(err)
		}
	}
	// A link of the image leads to where it leads in the container.
	if err := errors.Join(os.Rename(filepath.Join(root, "etc/passwd"), filepath.Join(root, "users")), os.Symlink("/users", filepath.Join(root, "etc/passwd"))); err != nil {
		t.Fatal(err)
	}
	if p, err := processOf(t, `{"args":["sh"],"user":"33"}`, root); err != nil || p.User.GID != 44 {
		t.Errorf("an absolute link: %+v, %v", p, err)
	}
	empty := t.TempDir()
	if p, err := processOf(t, `{"args":["sh"],"user":"1","group":"2"}`, empty); err != nil || p.User.UID != 1 || p.User.GID != 2 {
		t.Errorf("numbers without files: %+v, %v", p, err)
	}
	if err := os.Symlink(rootfs(t)+"/etc", filepath.Join(empty, "etc")); err != nil {
		t.Fatal(err)
	}
	if p, err := processOf(t, `{"args":["sh"],"user":"web"}`, empty); err == nil {
		t.Errorf("a link that leads out was followed: %+v", p.User)
	}
}

func sorted(ids []uint32) []uint32 {
	seen := make([]uint32, 0, len(ids))
	for n := range uint32(3000) {
		for _, id := range ids {
			if id == n {
				seen = append(seen, id)
				break
			}
		}
	}
	return seen
}

func TestProcess(t *testing.T) {
	p, err := processOf(t, `{"args":["a","b"],"envs":[{"env":"A","value":"b=c"}],"workdir":"/w","terminal":true,"noNewPrivileges":true,
		"rlimits":[{"type":"nofile","hard":20,"soft":10},{"type":"RLIMIT_CORE"}],"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"]}}`, rootfs(t))
	if err != nil {
		t.Fatal(err)
	}
	want := &specs.Process{
		Args: []string{"a", "b"}, Env: []string{"A=b=c", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"}, Cwd: "/w", Terminal: true, NoNewPrivileges: true,
		Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 20, Soft: 10}, {Type: "RLIMIT_CORE"}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p, err := processOf(t, `{"args":["a"]}`, rootfs(t)); err != nil || p.Cwd != "/" || len(p.Capabilities.Bounding) != 14 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestRecorded is what cc-proxy 3.0.23 has sent for a container.
func TestRecorded(t *testing.T) {
	const recorded = `{"id":"c1","rootfs":"rootfs","image":"c1","process":{"user":"0","group":"0","terminal":false,"stdio":3,"stderr":4,"args":["/bin/true"],` +
		`"envs":[{"env":"PATH","value":"/bin"}],"workdir":"/","noNewPrivileges":false,"capabilities":{"bounding":null,"effective":null,"inheritable":null,` +
		`"permitted":null,"ambient":null}},"restartPolicy":"","initialize":false,"systemMountsInfo":{"bindMountDev":false,"devShmSize":0},"constraints":{"CPUQuota":0,"CPUPeriod":0}}`
	var r original.NewContainer
	if err := json.Unmarshal([]byte(recorded), &r); err != nil {
		t.Fatal(err)
	}
	if r.ID != "c1" || r.Process.Stdio != 3 || r.Process.Stderr != 4 || r.Process.Base().Args[0] != "/bin/true" || len(r.Spec) > 0 {
		t.Errorf("decoded as %+v", r)
	}
	p, err := original.ProcessOf(r.Process, rootfs(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"PATH=/bin"}, p.Env); diff != "" || len(p.Capabilities.Bounding) != 14 || p.Cwd != "/" {
		t.Errorf("%+v\n%s", p, diff)
	}
}

// TestRefused: what cannot be had is named.
func TestRefused(t *testing.T) {
	for raw, class := range map[string]hyperstart.ErrorClass{
		`{"id":"c"}`: hyperstart.ClassInvalidArgument,
		`{"id":"c","rootfs":"rootfs","image":"c","process":{}}`:                                     hyperstart.ClassInvalidArgument,
		`{"id":"c","rootfs":"rootfs","image":"../x","process":{"args":["sh"]}}`:                     hyperstart.ClassInvalidArgument,
		`{"id":"c","process":{"args":["sh"]}}`:                                                      hyperstart.ClassInvalidArgument,
		`{"id":"c","image":"vda","fstype":"ext4","process":{"args":["sh"]}}`:                        hyperstart.ClassNotImplemented,
		`{"id":"c","image":"c","scsiAddr":"0:1","process":{"args":["sh"]}}`:                         hyperstart.ClassNotImplemented,
		`{"id":"c","image":"c","volumes":[{"device":"vdb"}],"process":{"args":["sh"]}}`:             hyperstart.ClassNotImplemented,
		`{"id":"c","image":"c","ports":[{"hostPort":1}],"process":{"args":["sh"]}}`:                 hyperstart.ClassNotImplemented,
		`{"id":"c","image":"c","systemMountsInfo":{"bindMountDev":true},"process":{"args":["sh"]}}`: hyperstart.ClassNotImplemented,
		`{"id":"c","image":"c","fsmap":[{"path":"/d","scsiAddr":"0:1"}],"process":{"args":["sh"]}}`: hyperstart.ClassNotImplemented,
	} {
		var r original.NewContainer
		if err := json.Unmarshal([]byte(raw), &r); err != nil {
			t.Fatal(err)
		}
		if spec, err := original.Container(&r); classOf(err) != class {
			t.Errorf("%s: %+v, %v", raw, spec, err)
		}
	}
}

func classOf(err error) hyperstart.ErrorClass {
	if e, ok := errors.AsType[*hyperstart.GuestError](err); ok {
		return e.Class
	}
	return hyperstart.ClassUnknown
}

func TestRoutes(t *testing.T) {
	interfaces := []hyperstart.Interface{
		{NewDevice: "eth0", Device: "ens1", IPAddresses: []hyperstart.Address{{IP: "192.0.2.2", Mask: "24"}, {IP: "198.51.100.1", Mask: "255.255.0.0"}, {IP: "203.0.113.1", Mask: "32"}}},
		{Device: "eth1", IPAddresses: []hyperstart.Address{{IP: "2001:db8::1", Mask: "64"}, {IP: "10.0.0.1", Mask: "x"}, {IP: "10.0.0.1", Mask: "255.0.255.0"}}},
	}
	got := original.Routes(interfaces, []hyperstart.Route{{Dest: "default", Gateway: "192.0.2.1", Device: "eth0"}, {Dest: "192.0.2.0/24", Device: "eth0"}})
	var text []string
	for _, r := range got.Routes {
		text = append(text, strings.Join([]string{r.Dest, r.Gateway, r.Device, r.Source}, " "))
	}
	want := []string{"192.0.2.0/24  eth0 192.0.2.2", "198.51.0.0/16  eth0 198.51.100.1", "default 192.0.2.1 eth0 "}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPodRefused: what only the C agents know is not ignored.
func TestPodRefused(t *testing.T) {
	for raw, refused := range map[string]bool{
		`{"hostname":"h","shareDir":"hyperShared","containers":[],"dns":["192.0.2.1"],"restartPolicy":"never"}`: false,
		`{"containers":[{"id":"c"}]}`: true, `{"dnsSearch":["x"]}`: true, `{"dnsOptions":["x"]}`: true, `{"iptableRules":"x"}`: true,
		`{"portmappingWhiteLists":{"internalNetworks":["x"]}}`: true,
	} {
		var r original.StartPod
		if err := json.Unmarshal([]byte(raw), &r); err != nil {
			t.Fatal(err)
		}
		if err := r.Refuse(); (err != nil) != refused || refused && classOf(err) != hyperstart.ClassNotImplemented {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
