package operate

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// disker attaches and detaches.
type disker struct {
	*tool

	readOnly bool
	release  time.Duration
}

func diskCommand(t *tool) *cli.Command {
	d := &disker{tool: t}
	return &cli.Command{
		Name: "disk", Usage: "give a sandbox's VM a disk of the host, or take it back", ArgsUsage: "attach|detach ID|POD FILE|DISK",
		Description: "attach gives the VM a block device or a file with a raw image, as a virtio disk whose serial is printed: no container has it, and ccv2 exec can use it. What is mounted, locked or a container's is refused. " +
			"detach takes back a disk that was attached, by its serial or its path, and waits until the guest has released it; what is mounted in the VM is to be unmounted first. A disk ends with the VM.",
		ShellComplete: func(ctx context.Context, c *cli.Command) {
			if c.Args().Len() > 0 {
				t.Complete(ctx, c)
				return
			}
			fmt.Fprintln(t.Stdout, "attach\ndetach")
		},
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "read-only", Usage: "attach it so that the guest cannot write to it", Destination: &d.readOnly},
			&cli.DurationFlag{Name: "release", Usage: "how long the guest has to release a disk", Value: 10 * time.Second, Destination: &d.release},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			action := c.Args().First()
			if c.Args().Len() != 3 || action != "attach" && action != "detach" {
				return sandboxes.UsageError("want what to do, one sandbox, and a disk: ccv2 %s %s", c.Name, c.ArgsUsage)
			}
			if d.release <= 0 {
				return sandboxes.UsageError("--release %s: want more than 0", d.release)
			}
			r, err := sandboxes.Find(t.StateDir, c.Args().Get(1))
			if err != nil {
				return err
			}
			return sandboxes.Explain(r, d.do(ctx, r, action, c.Args().Get(2)))
		},
	}
}

// do does it. A shim that hangs is found soon; one that answers has limits of its own.
func (d *disker) do(ctx context.Context, r sandboxes.Record, action, disk string) error {
	if _, _, err := sandboxes.AskInfo(ctx, r, false, d.Limit); err != nil {
		return err
	}
	const vmm = 20 * time.Second // more than the shim waits for QEMU
	ctx, cancel := context.WithTimeout(ctx, vmm+d.release)
	defer cancel()
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return err
	}
	defer c.Close()
	if action == "detach" {
		if strings.Contains(disk, "/") {
			if disk, err = filepath.Abs(disk); err != nil {
				return err
			}
		}
		_, err = c.DetachDisk(ctx, &debugapi.DetachDiskRequest{Disk: disk, Timeout: d.release.Nanoseconds(), By: operator.Caller(), Activity: sandboxes.Activity()})
		return err
	}
	if disk, err = filepath.Abs(disk); err != nil {
		return err
	}
	answer, err := c.AttachDisk(ctx, &debugapi.AttachDiskRequest{Path: disk, ReadOnly: d.readOnly, By: operator.Caller(), Activity: sandboxes.Activity()})
	if err != nil {
		return err
	}
	if d.JSON {
		return operator.PrintJSON(d.Stdout, map[string]any{"disk": answer.GetDisk(), "path": disk, "read_only": d.readOnly})
	}
	_, err = fmt.Fprintln(d.Stdout, operator.Line(answer.GetDisk()))
	return err
}
