package sandbox

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// Original guests know no OCI specification: they get what their commands can
// say, with the keys that they accept and no others.

// legacyContainer makes the payload of NEWCONTAINER for an original guest.
func legacyContainer(c *Container, dialect hyperstart.Dialect) hyperstart.NewContainerRequest {
	request := hyperstart.NewContainerRequest{
		ID:      c.ID,
		RootFS:  "rootfs",
		Image:   c.ID, // the directory below the share
		Process: legacyProcess(c.bundle.Spec.Process, hyperstart.InitProcess, c.init.stdio.Terminal, dialect),
	}
	for _, b := range c.binds {
		request.FSMap = append(request.FSMap, hyperstart.FSMap{
			Source: b.source, Path: b.destination, ReadOnly: b.readOnly,
		})
	}
	return request
}

// legacyProcess makes a process object.
func legacyProcess(spec *specs.Process, id string, terminal bool, dialect hyperstart.Dialect) *hyperstart.Process {
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
	if dialect == hyperstart.DialectClearC {
		setSize(p, spec.ConsoleSize)
	}
	return p
}

// legacyRefusal names what a specification asks for and an original guest
// would silently not do, where that weakens the container; nil when there is
// nothing of that kind.
func legacyRefusal(spec *specs.Spec, dialect hyperstart.Dialect) error {
	var what string
	switch {
	case dialect == hyperstart.DialectCCv2:
		return nil
	case spec.Root != nil && spec.Root.Readonly:
		what = "a read-only root file system"
	case bundle.HasNamespace(spec, specs.UserNamespace):
		what = "a user namespace"
	default:
		return nil
	}
	return fmt.Errorf("%s cannot be had from a guest of dialect %s; use the ccv2 guest image", what, dialect)
}
