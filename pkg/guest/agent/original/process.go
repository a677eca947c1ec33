package original

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities are those of a container that names none.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// defaultPath is where programs are looked for when the environment does not say it: the original
// agents have some as well.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ProcessOf returns a process of the OCI runtime specification. Names of users and groups are looked up
// in the root file system at root.
func ProcessOf(p *Process, root string) (*specs.Process, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, invalid("there is no command to run")
	}
	who, err := lookUp(p, root)
	if err != nil {
		return nil, invalid("user of %s: %w", p.Args[0], err)
	}
	out := &specs.Process{
		Terminal: p.Terminal, Args: p.Args, Cwd: p.Workdir, User: who,
		NoNewPrivileges: p.NoNewPrivileges, Capabilities: capabilities(p.Capabilities),
	}
	if out.Cwd == "" {
		out.Cwd = "/"
	}
	has := make(map[string]bool)
	for _, e := range p.Envs {
		out.Env = append(out.Env, e.Env+"="+e.Value)
		has[e.Env] = true
	}
	if !has["PATH"] {
		out.Env = append(out.Env, defaultPath)
	}
	if p.Terminal && !has["TERM"] {
		out.Env = append(out.Env, "TERM=xterm")
	}
	for _, l := range p.Rlimits {
		kind := strings.ToUpper(l.Type)
		if !strings.HasPrefix(kind, "RLIMIT_") {
			kind = "RLIMIT_" + kind
		}
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: kind, Hard: l.Hard, Soft: l.Soft})
	}
	return out, nil
}

func capabilities(c Capabilities) *specs.LinuxCapabilities {
	if len(c.Bounding) == 0 {
		return &specs.LinuxCapabilities{Bounding: defaultCapabilities, Effective: defaultCapabilities, Permitted: defaultCapabilities}
	}
	return &specs.LinuxCapabilities{
		Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient,
	}
}

// lookUp returns the user of a process: names or numbers.
func lookUp(p *Process, path string) (u specs.User, err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return u, err
	}
	defer func() { _ = root.Close() }()
	who := p.User
	if p.Group != "" {
		who += ":" + p.Group
	}
	groups := open(root, "etc/group")
	defer closeFile(groups)
	users := open(root, "etc/passwd")
	defer closeFile(users)
	found, err := user.GetExecUser(who, &user.ExecUser{Home: "/"}, reader(users), reader(groups))
	if err != nil {
		return u, err
	}
	u.UID, u.GID = uint32(found.Uid), uint32(found.Gid)
	for _, gid := range found.Sgids {
		u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
	}
	if len(p.AdditionalGroups) == 0 {
		return u, nil
	}
	again := open(root, "etc/group")
	defer closeFile(again)
	more, err := user.GetAdditionalGroups(p.AdditionalGroups, reader(again))
	if err != nil {
		return u, fmt.Errorf("additional groups: %w", err)
	}
	for _, gid := range more {
		u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
	}
	return u, nil
}

// open opens a file that need not be there.
func open(root *os.Root, name string) *os.File {
	f, err := root.Open(name)
	if err != nil {
		return nil
	}
	return f
}

func closeFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}

// reader is nil for no file.
func reader(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return f
}
