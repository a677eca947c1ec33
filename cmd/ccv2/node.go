package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/kube"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/node"
)

// readyFile is there as long as the node has the label, for the pod's readiness probe.
const readyFile = "/run/ccv2-node/ready"

// hostPath is where programs of a host are looked for.
const hostPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// runNode is the program of the DaemonSet's pods.
func runNode(args []string, stdout, stderr io.Writer) error {
	i := newInstaller(stdout, stderr)
	i.host.Root = "/host"
	fs := flag.NewFlagSet("ccv2 node", flag.ContinueOnError)
	fs.SetOutput(stderr)
	i.hostFlags(fs)
	unit := fs.String("restart", "", "systemd `unit` of containerd on the host, to restart when it does not know of the runtime yet (default: it is not restarted)")
	set := fs.String("daemonset", "ccv2", "`name` of the DaemonSet that this pod is of")
	ready := fs.Bool("ready", false, "only say whether the node has its label, by the exit status")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *ready {
		_, err := os.Stat(readyFile)
		return err
	}
	if err := errors.Join(i.absolute(), i.findBundle()); err != nil {
		return err
	}
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if err := i.asBefore(given); err != nil {
		return err
	}
	a, err := i.agent(*set, *unit)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return a.Run(ctx)
}

// agent is the one of this pod.
func (i *installer) agent(set, unit string) (*node.Agent, error) {
	name, namespace := os.Getenv("NODE_NAME"), os.Getenv("POD_NAMESPACE")
	if name == "" || namespace == "" {
		return nil, errors.New("NODE_NAME and POD_NAMESPACE are to be set, as the DaemonSet in deploy does")
	}
	api, err := kube.InCluster(name, namespace, set)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(readyFile); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a container before this one
		return nil, err
	}
	return i.nodeAgent(api, unit), nil
}

// nodeAgent is an agent for the host, whose containerd is restarted as a unit; not at all for "".
func (i *installer) nodeAgent(api node.API, unit string) *node.Agent {
	const every, patience, apart = 2 * time.Second, 30 * time.Second, 5 * time.Minute
	a := &node.Agent{
		API: api, Host: i.host, Bundle: i.bundle, Out: i.stdout, Every: every, Patience: patience, Apart: apart,
		Probe: func(ctx context.Context) error {
			return i.onHost(ctx, filepath.Join(i.host.Prefix, "current/bin/ccv2"), "check", "-config", i.host.Config)
		},
		Uninstall: i.uninstall,
		Ready: func(ready bool) error {
			if !ready {
				return os.Remove(readyFile)
			}
			return errors.Join(os.MkdirAll(filepath.Dir(readyFile), 0o755), os.WriteFile(readyFile, nil, 0o644))
		},
	}
	if unit != "" {
		a.Restart = func(ctx context.Context) error { return i.onHost(ctx, "/usr/bin/env", "systemctl", "restart", unit) }
	}
	return a
}

// onHost runs a program of the host in the host's root directory.
func (i *installer) onHost(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + i.host.Bin + ":" + hostPath, "HOME=/root", "SYSTEMD_IGNORE_CHROOT=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: i.host.Root}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = i.stdout, i.stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("on the host: %s: %w", filepath.Base(program), err)
	}
	return nil
}
