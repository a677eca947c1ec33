package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/podvm"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spare"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// makeTemplate is the argument with which this binary is a process that makes a template.
const makeTemplate = "make-template"

// makeLimit bounds how long that takes. It has the lowest priority, so it may be long.
const makeLimit = 10 * time.Minute

// templateJob is what that process reads from its standard input.
type templateJob struct {
	Config config.Config // of the host, for the store
	VM     podvm.Config  // of the sandbox that has found no template
}

// source has VMs for a sandbox. When there is no template for them, and there can be
// one, it starts a process that makes it: now, while this process is not in the pod's
// cgroup yet.
func source(ctx context.Context, c config.Config, vm podvm.Config) podvm.Source {
	driver := qemu.New()
	if !c.Template.Enabled {
		return podvm.Cold{Driver: driver}
	}
	s := &template.Source{Store: vmconfig.TemplateStore(c), VM: vmconfig.TemplateVM(c, vm, driver, version.Version)}
	pool := vmconfig.SparePool(c)
	with := &spare.Source{Template: s, Pool: pool}
	key, err := s.VM.Key()
	if err == nil && s.VM.Fits() == nil && !s.Boots(key) {
		with.Claimed = pool.Claim(key) // before others are wanted
	}
	if !c.Template.Background {
		return with
	}
	wanted, failed := s.Store.Wanted(s.VM)
	if failed != "" {
		log.G(ctx).WithField("reason", failed).Warn("make a template: it has failed, and is tried again within an hour: VMs boot")
	}
	if !wanted && failed == "" && s.VM.Fits() == nil {
		wanted, failed = pool.Wanted(key, c.Template.Spare)
		if failed != "" {
			log.G(ctx).WithField("reason", failed).Warn("make a spare VM: it has failed, and is tried again within some minutes: VMs go on from the template")
			wanted = false
		}
	}
	if wanted {
		if err := startMaker(templateJob{Config: c, VM: vm}); err != nil {
			log.G(ctx).WithError(err).Warn("make a template: VMs boot until there is one")
		}
	}
	return with
}

// startMaker starts the process, which outlives this one.
func startMaker(job templateJob) error {
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	stdin, err := fileWith(text)
	if err != nil {
		return err
	}
	defer stdin.Close()
	if _, err := stdin.Seek(0, 0); err != nil {
		return err
	}
	// No pipe: who looks for streams that a shim has left open counts those.
	stdout, err := fileWith(nil)
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{os.Args[0], makeTemplate}, Dir: "/",
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Stdin: stdin, Stdout: stdout,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	// A process has the priority of the thread that starts it.
	err = osthread.Run(func() error {
		const lowest = 19
		return errors.Join(unix.Setpriority(unix.PRIO_PROCESS, 0, lowest), cmd.Start())
	})
	if err != nil {
		return errors.Join(err, stdout.Close())
	}
	go func() {
		defer stdout.Close()
		_ = cmd.Wait() // what it has to say is in the store
		made, _ := io.ReadAll(io.NewSectionReader(stdout, 0, math.MaxInt64))
		reap(strings.Fields(string(made)))
	}()
	return nil
}

// reap waits for the processes that a maker has left: they are this process's children now, as it
// is a subreaper. Where it is none they are not, and that is no error.
func reap(pids []string) {
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		go func() {
			for {
				if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
					return
				}
			}
		}()
	}
}

// runMaker makes the template.
func runMaker(ctx context.Context) error {
	var job templateJob
	if err := json.NewDecoder(os.Stdin).Decode(&job); err != nil {
		return fmt.Errorf("%s: %w", makeTemplate, err)
	}
	// It is the first to go when the host has no memory left.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600); err != nil {
		return fmt.Errorf("%s: %w", makeTemplate, err)
	}
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	s := &template.Source{Store: vmconfig.TemplateStore(job.Config), VM: vmconfig.TemplateVM(job.Config, job.VM, qemu.New(), version.Version)}
	if err := missingTemplate(ctx, s); err != nil || job.Config.Template.Spare == 0 {
		return err
	}
	pool := vmconfig.SparePool(job.Config)
	return pool.Fill(ctx, s, job.Config.Template.Spare, func(_ string, pid int) { fmt.Println(pid) })
}

// missingTemplate makes the template unless it is there. One that is stays as it is, also in that larger
// VMs boot for a while: that ends when an operator has it made.
func missingTemplate(ctx context.Context, s *template.Source) error {
	key, err := s.VM.Key()
	if err != nil {
		return err
	}
	if _, err := s.Store.Open(key); err == nil {
		return nil
	}
	_, err = vmconfig.MakeTemplate(ctx, s, &hostcgroup.Aside{})
	return err
}
