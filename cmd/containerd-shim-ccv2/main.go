// Command containerd-shim-ccv2 is a containerd shim that runs every pod in a
// QEMU VM of its own. containerd starts it as the runtime io.containerd.cc.v2
// through the name containerd-shim-cc-v2.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/manager"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spare"
)

const runtimeName = "io.containerd.cc.v2"

func main() {
	if spare.Wake(os.Args) {
		return
	}
	if len(os.Args) == 2 && os.Args[1] == makeTemplate {
		if err := runMaker(context.Background()); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %s\n", runtimeName, err)
			os.Exit(1)
		}
		return
	}
	m := manager.New(runtimeName)
	if done, err := startLegacy(context.Background(), m, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s", runtimeName, err)
		os.Exit(1)
	} else if done {
		return
	}
	registerPlugins()
	// Children are waited for where they are started, not by a reaper.
	shim.RunShim(context.Background(), m, func(c *shim.Config) {
		c.NoReaper = true // the shim is their subreaper anyway, for virtiofsd's child
	})
}
