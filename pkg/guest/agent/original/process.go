package original

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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
	users, err := read(path, "etc/passwd")
	if err != nil {
		return u, err
	}
	groups, err := read(path, "etc/group")
	if err != nil {
		return u, err
	}
	who := p.User
	if p.Group != "" {
		who += ":" + p.Group
	}
	found, err := user.GetExecUser(who, &user.ExecUser{Home: "/"}, bytes.NewReader(users), bytes.NewReader(groups))
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
	more, err := user.GetAdditionalGroups(p.AdditionalGroups, bytes.NewReader(groups))
	if err != nil {
		return u, fmt.Errorf("additional groups: %w", err)
	}
	for _, gid := range more {
		u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
	}
	return u, nil
}

// maxFile bounds a file of users or groups in bytes.
const maxFile = 4 << 20

// read reads a file of a container, which need not be there. Links lead to where they lead in the
// container, and nothing but a file is read: who opens a pipe there would wait for ever.
func read(root, name string) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file, or has more than %d bytes", name, maxFile)
	}
	return io.ReadAll(io.LimitReader(f, maxFile))
}
