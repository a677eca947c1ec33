package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
)

// verdict is the outcome of one check.
type verdict string

// Verdicts. Only verdictFail makes the command fail.
const (
	verdictOK   verdict = "ok"
	verdictWarn verdict = "warn"
	verdictFail verdict = "FAIL"
)

// finding is what one check has to say.
type finding struct {
	verdict verdict
	detail  string
	fix     string // what to do about it; "" when it is ok
}

func ok(format string, args ...any) finding {
	return finding{verdict: verdictOK, detail: fmt.Sprintf(format, args...)}
}

func warn(detail, fix string) finding { return finding{verdictWarn, detail, fix} }
func fail(detail, fix string) finding { return finding{verdictFail, detail, fix} }

// checker runs checks and prints what they find.
type checker struct {
	out    io.Writer
	failed bool

	path   string // configuration file
	config config.Config
	driver hypervisor.Driver
	host   qemu.Host
	proc   string                  // the process file system
	caps   hypervisor.Capabilities // of the configured QEMU, empty when it cannot be asked
	accel  hypervisor.Accelerator

	podFixed int64 // measured overhead of a pod in MiB
}

func runCheck(args []string, stdout, stderr io.Writer) error {
	c := &checker{out: stdout, driver: qemu.New(), host: qemu.LocalHost(), proc: "/proc"}
	fs := flag.NewFlagSet("ccv2 check", flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := os.Getenv(config.EnvPath)
	if path == "" {
		path = config.DefaultPath
	}
	fs.StringVar(&c.path, "config", path, "configuration `file`")
	noBoot := fs.Bool("no-boot", false, "do not boot a VM")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c.hostChecks(ctx)
	switch {
	case c.failed:
		return errors.New("this host cannot run sandboxes yet; the fixes are above")
	case *noBoot:
		return nil
	}
	if err := c.boot(ctx); err != nil {
		return fmt.Errorf("probe vm: %w", err)
	}
	return nil
}

// report prints one finding.
func (c *checker) report(name string, f finding) {
	c.failed = c.failed || f.verdict == verdictFail
	fmt.Fprintf(c.out, "%-4s  %-13s  %s\n", f.verdict, name, indent(f.detail))
	if f.fix != "" {
		fmt.Fprintf(c.out, "%-4s  %-13s  fix: %s\n", "", "", indent(f.fix))
	}
}

// indent keeps further lines below the first one.
func indent(s string) string { return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", 21)) }

// hostChecks runs all checks that need no VM, in the order in which a start
// would meet what they look at.
func (c *checker) hostChecks(ctx context.Context) {
	c.report("configuration", c.checkConfig())
	c.report("privileges", checkPrivileges(os.Geteuid()))
	c.report("qemu", c.checkQEMU(ctx))
	if c.caps.Version != "" {
		c.report("machine type", c.checkMachine())
		c.report("share", c.checkShare())
	}
	c.report("accelerator", c.checkAccelerator())
	if c.accel == hypervisor.AccelKVM && c.config.VM.VhostNet {
		c.report("vhost-net", checkVhost("/dev/vhost-net"))
	}
	c.report("guest kernel", checkReadable(c.config.Guest.Kernel, "guest.kernel"))
	c.report("guest image", checkReadable(c.config.Guest.Image, "guest.image"))
	if c.config.Share.Type == "virtiofs" {
		c.report("virtiofsd", checkVirtioFSD(ctx, c.config.Share.VirtioFSD))
		c.report("memfd", checkMemfd())
	}
	c.report("mounts", checkMounts())
	c.report("state dir", checkStateDir(c.config.StateDir))
	c.report("cgroup", checkCgroup("/sys/fs/cgroup"))
	c.report("inotify", checkInotify(c.proc))
	c.report("shim", checkShim(ctx))
	c.report("containerd", checkContainerd(ctx, c.proc))
	if !c.failed { // else it is not known what they would be made of
		_, f := c.templates()
		c.report("templates", f)
	}
}
