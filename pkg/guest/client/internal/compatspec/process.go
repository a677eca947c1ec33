package compatspec

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Process is a process as the commands of a dialect have it, with the keys that it accepts.
func Process(spec *specs.Process, id string, terminal bool, dialect hyperstart.Dialect) *hyperstart.Process {
	p := &hyperstart.Process{
		Terminal: terminal,
		Args:     spec.Args,
		Workdir:  spec.Cwd,
		User:     strconv.FormatUint(uint64(spec.User.UID), 10),
		Group:    strconv.FormatUint(uint64(spec.User.GID), 10),
	}
	if dialect.HasProcessID() {
		p.ID = id
	}
	for _, gid := range spec.User.AdditionalGids {
		p.AdditionalGroups = append(p.AdditionalGroups, strconv.FormatUint(uint64(gid), 10))
	}
	for _, env := range spec.Env {
		key, value, _ := strings.Cut(env, "=")
		p.Envs = append(p.Envs, hyperstart.Env{Env: key, Value: value})
	}
	switch dialect {
	case hyperstart.DialectClearC:
		SetSize(p, spec)
	case hyperstart.DialectClearGo:
		p.Privileges = privileges(spec)
	case hyperstart.DialectUnknown, hyperstart.DialectHyperhq, hyperstart.DialectCCv2:
	}
	return p
}

// privileges is nil for a process that has no need to be asked about.
func privileges(spec *specs.Process) *hyperstart.Privileges {
	p := &hyperstart.Privileges{NoNewPrivileges: spec.NoNewPrivileges}
	if c := spec.Capabilities; c != nil {
		p.Capabilities = &hyperstart.Capabilities{
			Bounding: c.Bounding, Effective: c.Effective, Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient,
		}
	}
	if *p == (hyperstart.Privileges{}) {
		return nil
	}
	return p
}

// SetSize sets the initial size of a process's terminal.
func SetSize(p *hyperstart.Process, spec *specs.Process) {
	const most = 1<<16 - 1
	if !p.Terminal || spec == nil || spec.ConsoleSize == nil {
		return
	}
	if size := spec.ConsoleSize; size.Height <= most && size.Width <= most {
		p.Rows, p.Columns = uint16(size.Height), uint16(size.Width)
	}
}
