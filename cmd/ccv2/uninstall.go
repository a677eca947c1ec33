package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/install"
	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spare"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// makerEnd bounds the wait for the end of a process that makes a template.
const makerEnd = 10 * time.Second

func runUninstall(args []string, stdout, stderr io.Writer) error {
	i := newInstaller(stdout, stderr)
	i.noProbe = true
	return i.run("uninstall", args, (*installer).uninstall)
}

// uninstall takes away what was installed, with the templates before it: while there is a
// record, it can be run again.
func (i *installer) uninstall() error {
	templates := i.templates() // while there is a configuration
	if templates == nil {
		return install.Uninstall(i.host, i.dry, i.stdout, nil)
	}
	if i.dry {
		err := install.Uninstall(i.host, true, i.stdout, nil)
		if err == nil {
			fmt.Fprintf(i.stdout, "remove the templates in %s\n", templates.Dir)
		}
		return err
	}
	if i.sameProcesses() { // its VM would be taken for that of a pod
		ctx, cancel := context.WithTimeout(context.Background(), makerEnd)
		defer cancel()
		if err := templates.EndMaker(ctx); err != nil {
			return fmt.Errorf("%w; nothing was changed", err)
		}
		if err := i.spares().RemoveAll(ctx); err != nil {
			return fmt.Errorf("%w; nothing else was changed", err)
		}
	}
	return install.Uninstall(i.host, false, i.stdout, func() error {
		if err := templates.RemoveAll(); err != nil {
			return err
		}
		if templates.Dir == i.host.Resolve(config.Defaults().Template.Dir) {
			_ = os.Remove(filepath.Dir(templates.Dir)) // of nobody else, when it is empty
		}
		return nil
	})
}

// sameProcesses reports whether a pid of the host is one here.
func (i *installer) sameProcesses() bool {
	self, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	host, err := os.Readlink(filepath.Join(i.host.Root, "proc/1/ns/pid"))
	return err == nil && self == host
}

// spares are the VMs that the host keeps ready.
func (i *installer) spares() *spare.Pool {
	c, err := config.Load(i.host.Resolve(i.host.Config), nil)
	if err != nil && c.StateDir == "" {
		c = config.Defaults()
	}
	return spare.PoolOf(i.host.Resolve(c.StateDir))
}

// templates is the store of the host's templates; nil when there is none.
func (i *installer) templates() *template.Store {
	c, err := config.Load(i.host.Resolve(i.host.Config), nil)
	if err != nil && c.Template.Dir == "" {
		return nil
	}
	store := vmconfig.TemplateStore(c)
	store.Dir = i.host.Resolve(store.Dir)
	if _, err := os.Stat(store.Dir); err != nil {
		return nil
	}
	return store
}
