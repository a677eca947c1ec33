package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

const (
	socket           = "/run/containerd/containerd.sock"
	failpointNetwork = "/etc/cni/failpoint.d"
)

// daemonConfig is that of a node with both runtimes; %q is the default. What is
// beside that is what upstream's scripts configure for their tests.
const daemonConfig = `version = 4
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
drain_exec_sync_io_timeout = "10s"
[plugins.'io.containerd.snapshotter.v1.overlayfs']
slow_chown = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = %q
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.ccv2]
runtime_type = "io.containerd.cc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc-fp]
runtime_type = "runc-fp.v1"
cni_conf_dir = "` + failpointNetwork + `"
cni_max_conf_num = 1
pod_annotations = ["io.containerd.runtime.v2.shim.failpoint.*"]
[plugins.'io.containerd.nri.v1.nri']
disable = false
socket_path = "/var/run/nri-test.sock"
plugin_path = "/no/pre-launched/nri/plugins"
`

// daemon is a containerd that is started again whenever a test has ended it.
type daemon struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// startDaemon returns once containerd listens. Its log is a file of build.
func startDaemon(ctx context.Context, o options, runtime string) (*daemon, error) {
	if err := os.MkdirAll("/etc/containerd", 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile("/etc/containerd/config.toml", fmt.Appendf(nil, daemonConfig, runtime), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(logPath(o.build, o.suite, runtime, "containerd"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	d := &daemon{cancel: cancel}
	d.done.Go(func() {
		defer func() { _ = log.Close() }()
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, filepath.Join(o.build, "bin/containerd"))
			cmd.Stdout, cmd.Stderr = log, log
			_ = cmd.Run() // tests kill it
			select {      // and look once a second whether it has gone
			case <-ctx.Done():
			case <-time.After(3 * time.Second):
			}
		}
	})
	return d, listens(ctx, "containerd", socket, log.Name())
}

// listens waits until a daemon accepts connections.
func listens(ctx context.Context, name, socket, log string) error {
	deadline, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		conn, err := (&net.Dialer{}).DialContext(deadline, "unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			return errors.Join(fmt.Errorf("%s does not listen, see %s", name, log), err)
		}
	}
}

// close ends it. The shims end with the machine.
func (d *daemon) close() {
	d.cancel()
	d.done.Wait()
}
