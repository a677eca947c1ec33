package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/install"
	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
)

// installer has the flags of install, upgrade and uninstall.
type installer struct {
	host           install.Host
	bundle         string
	dry, restart   bool
	noProbe        bool
	kind, nodes    string
	stdout, stderr io.Writer
	restartDaemon  func(ctx context.Context) error
}

func runInstall(args []string, stdout, stderr io.Writer) error {
	return newInstaller(stdout, stderr).run("install", args, func(i *installer) error { return install.Install(i.host, i.bundle, i.dry, i.stdout) })
}

func runUpgrade(args []string, stdout, stderr io.Writer) error {
	return newInstaller(stdout, stderr).run("upgrade", args, func(i *installer) error {
		version, err := install.Installed(i.host)
		if err == nil && version == "" {
			err = errors.New("nothing is installed; use ccv2 install")
		}
		if err != nil {
			return err
		}
		return install.Install(i.host, i.bundle, i.dry, i.stdout)
	})
}

func newInstaller(stdout, stderr io.Writer) *installer {
	return &installer{host: install.Defaults(), stdout: stdout, stderr: stderr, restartDaemon: restartContainerd}
}

// run reads the flags and does the work.
func (i *installer) run(name string, args []string, do func(*installer) error) error {
	fs := flag.NewFlagSet("ccv2 "+name, flag.ContinueOnError)
	fs.SetOutput(i.stderr)
	i.hostFlags(fs)
	fs.BoolVar(&i.dry, "dry-run", false, "print what would be changed, as a diff")
	fs.BoolVar(&i.restart, "restart", false, "restart containerd afterwards, with systemctl")
	fs.StringVar(&i.kind, "kind", "", "do it on the nodes of a kind `cluster`, through Docker Engine")
	fs.StringVar(&i.nodes, "nodes", "", "`names` of the nodes of that cluster, with commas (default all)")
	if !i.noProbe {
		fs.StringVar(&i.bundle, "bundle", "", "`directory` of an unpacked bundle (default the one that this tool is in)")
		fs.BoolVar(&i.noProbe, "no-probe", false, "do not boot a VM to measure the overhead for the RuntimeClass")
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["kind"] || given["nodes"] {
		return i.onKind(name, fs)
	}
	if err := i.prepare(); err != nil {
		return err
	}
	if err := i.asBefore(given); err != nil {
		return err
	}
	unix.Umask(0o022) // all that is made belongs to root, and everybody may read it
	if err := do(i); err != nil {
		return err
	}
	return i.finish()
}

// hostFlags adds the flags that say where things are.
func (i *installer) hostFlags(fs *flag.FlagSet) {
	fs.StringVar(&i.host.Root, "root", i.host.Root, "`directory` with the root file system of the host")
	fs.StringVar(&i.host.Prefix, "prefix", i.host.Prefix, "`directory` of the host that gets the files")
	fs.StringVar(&i.host.Bin, "bin", i.host.Bin, "`directory` in containerd's PATH, for links")
	fs.StringVar(&i.host.Config, "config", i.host.Config, "ccv2's configuration `file`")
	fs.StringVar(&i.host.Containerd, "containerd-config", i.host.Containerd, "containerd's configuration `file`")
}

// absolute checks the paths of these flags.
func (i *installer) absolute() error {
	for name, path := range map[string]*string{
		"root": &i.host.Root, "prefix": &i.host.Prefix, "bin": &i.host.Bin, "config": &i.host.Config, "containerd-config": &i.host.Containerd,
	} {
		if !filepath.IsAbs(*path) {
			return fmt.Errorf("-%s must be an absolute path, not %q", name, *path)
		}
		if strings.ContainsAny(*path, "\"\\\n") { // they become strings of TOML
			return fmt.Errorf("-%s must be a path without quotation marks, backslashes and ends of lines, not %q", name, *path)
		}
		*path = filepath.Clean(*path)
	}
	return nil
}

// prepare checks what can be checked before anything is done.
func (i *installer) prepare() error {
	if err := i.absolute(); err != nil {
		return err
	}
	if i.restart && (i.host.Root != "/" || strings.Contains(i.host.Containerd, "/rancher/")) {
		return errors.New("-restart is for this host's unit containerd: restart that of the other host, or of k3s, yourself; nothing was changed")
	}
	if i.host.Root == "/" && os.Geteuid() != 0 && !i.dry {
		return errors.New("root is needed; nothing was changed")
	}
	return i.findBundle()
}

// findBundle has the bundle that the tool is in, where no other one is given.
func (i *installer) findBundle() error {
	if i.bundle != "" {
		return nil
	}
	self, err := os.Executable()
	i.bundle = filepath.Dir(filepath.Dir(self))
	return err
}

// asBefore has the paths that were given when it was installed, where no others are.
func (i *installer) asBefore(given map[string]bool) error {
	before, err := i.host.Recorded()
	if err != nil {
		return err
	}
	for name, path := range map[string]struct{ to, from *string }{
		"bin": {&i.host.Bin, &before.Bin}, "config": {&i.host.Config, &before.Config}, "containerd-config": {&i.host.Containerd, &before.Containerd},
	} {
		if !given[name] {
			*path.to = *path.from
		}
	}
	return nil
}

// finish does what comes after the files.
func (i *installer) finish() error {
	if i.dry {
		return nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if i.restart {
		if err := i.restartDaemon(ctx); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(i.stdout, "containerd reads its configuration when it is started: restart it, or run this with -restart")
	}
	if i.noProbe || i.host.Root != "/" {
		return nil
	}
	if err := i.writeRuntimeClass(ctx); err != nil {
		return err
	}
	return i.makeTemplate(ctx)
}

// makeTemplate makes the template of pods without limits, with which they start faster.
func (i *installer) makeTemplate(ctx context.Context) error {
	c, err := config.Load(i.host.Config, nil)
	if err != nil || !c.Template.Enabled {
		return err
	}
	source, err := templateSource(c, bundle.Limits{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	t, err := vmconfig.MakeTemplate(ctx, source, &hostcgroup.Aside{Shares: usualShares})
	if errdefs.IsNotImplemented(err) || errdefs.IsUnavailable(err) || errdefs.IsResourceExhausted(err) {
		fmt.Fprintf(i.stdout, "pods boot: %v\n", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("it is installed, and pods boot: %w", err)
	}
	fmt.Fprintf(i.stdout, "pods start from template %s\n", t.Key)
	return nil
}

func restartContainerd(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "systemctl", "restart", "containerd").CombinedOutput()
	if err != nil {
		return fmt.Errorf("restart containerd: %w: %s", err, out)
	}
	return nil
}

// writeRuntimeClass boots a VM as a pod would, and writes the RuntimeClass with the
// overhead that it has.
func (i *installer) writeRuntimeClass(ctx context.Context) error {
	c := &checker{out: io.Discard, path: i.host.Config, driver: qemu.New(), host: qemu.LocalHost(), proc: "/proc"}
	c.hostChecks(ctx)
	if err := c.boot(ctx); err != nil {
		return fmt.Errorf("it is installed, but a VM does not boot; `ccv2 check` says more: %w", err)
	}
	if err := install.WriteRuntimeClass(i.host, fmt.Sprintf(runtimeClass, c.podFixed)); err != nil {
		return err
	}
	fmt.Fprintf(i.stdout, "a pod costs %d MiB beside its containers; kubectl apply -f %s\n", c.podFixed, i.host.RuntimeClass())
	return nil
}

// runtimeClass has the measured overhead in MiB. The label is that of nodes on which a
// VM has booted.
const runtimeClass = `apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: ccv2
handler: ccv2
overhead:
  podFixed:
    memory: %dMi
    cpu: 100m
scheduling:
  nodeSelector:
    ccv2.io/runtime: "true"
`
