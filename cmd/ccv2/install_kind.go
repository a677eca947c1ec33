package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/install"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/kind"
)

// onKind does what the command does on the nodes of a kind cluster: the flags are those of
// the tool there, but for the ones that say where that is.
func (i *installer) onKind(name string, fs *flag.FlagSet) error {
	var args, nodes []string
	var err error
	fs.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "kind", "nodes", "bundle":
		case "root":
			err = errors.New("-root is for the file system of another host, and -kind for the nodes of a cluster; nothing was changed")
		default:
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	if err == nil && i.kind == "" {
		err = errors.New("-kind needs the name of a cluster (kind get clusters); nothing was changed")
	}
	if err != nil {
		return err
	}
	if i.nodes != "" {
		nodes = strings.Split(i.nodes, ",")
	}
	uninstall := name == "uninstall"
	if !uninstall {
		if err := i.findBundle(); err != nil {
			return err
		}
		if err := install.Verify(i.bundle); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := kind.Open(ctx, i.kind, nodes, i.stdout)
	if err != nil {
		return err
	}
	if uninstall {
		return c.Uninstall(ctx, i.host.Prefix, args, i.dry)
	}
	if err := c.Install(ctx, i.bundle, name, args); err != nil {
		return err
	}
	if i.dry || i.noProbe || !i.restart {
		return nil // no VM has booted yet, or containerd does not know of them
	}
	return c.Tell(ctx, i.host.Prefix)
}
