package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operate"
	"github.com/ccv2/containerd-shim-ccv2/cmd/internal/vmconfig"
	"github.com/ccv2/containerd-shim-ccv2/config"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qemu"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/spare"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

const templateUsage = "usage: ccv2 template build [-config FILE] [-cpus N] [-memory MIB] | list [-config FILE] [-state-dir DIR] | remove [-config FILE] [-state-dir DIR] [-all | -spare | KEY...]"

// templateCommand is what the subcommands of `ccv2 template` have in common.
type templateCommand struct {
	out    io.Writer
	flags  *flag.FlagSet
	path   string // configuration file
	state  string // directory of the sandboxes; "" for that of the configuration
	config config.Config
	store  *template.Store
}

func runTemplate(args []string, stdout, stderr io.Writer) error {
	actions := map[string]func(*templateCommand, []string) error{
		"build": (*templateCommand).build, "list": (*templateCommand).list, "remove": (*templateCommand).remove,
	}
	if len(args) == 0 || actions[args[0]] == nil {
		return errors.New(templateUsage)
	}
	c := &templateCommand{out: stdout, flags: flag.NewFlagSet("ccv2 template "+args[0], flag.ContinueOnError)}
	c.flags.SetOutput(stderr)
	c.path = os.Getenv(config.EnvPath)
	if c.path == "" {
		c.path = config.DefaultPath
	}
	c.flags.StringVar(&c.path, "config", c.path, "configuration `file`")
	if args[0] != "build" {
		c.flags.StringVar(&c.state, "state-dir", "", "`directory` of the sandboxes whose spare VMs are meant (default: what the configuration says)")
	}
	err := actions[args[0]](c, args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

// load reads the arguments and the configuration.
func (c *templateCommand) load(args []string) error {
	if err := c.flags.Parse(args); err != nil {
		return err
	}
	var err error
	if c.config, err = config.Load(c.path, nil); err != nil {
		return err
	}
	if c.state != "" {
		c.config.StateDir = c.state
	}
	c.store = vmconfig.TemplateStore(c.config)
	return nil
}

// build makes the template for pods of a size, unless there is one.
func (c *templateCommand) build(args []string) error {
	var limits bundle.Limits
	c.flags.Func("cpus", "for pods with a limit of `n` CPUs", func(s string) error {
		n, err := positive(s)
		limits.CPUQuota, limits.CPUPeriod = n*100000, 100000
		return err
	})
	c.flags.Func("memory", "for pods with a limit of `mib` MiB of memory", func(s string) error {
		n, err := positive(s)
		limits.Memory = n << 20
		return err
	})
	if err := c.load(args); err != nil {
		return err
	}
	if c.flags.NArg() > 0 {
		return errors.New(templateUsage)
	}
	if !c.config.Template.Enabled {
		return fmt.Errorf("templates are off: set [template] enabled = true in %s", c.path)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	source, err := templateSource(c.config, limits)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	group := &hostcgroup.Aside{Shares: usualShares}
	t, err := vmconfig.MakeTemplate(ctx, source, group)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s  %d MiB, %d vCPUs: %d MiB on disk\n", t.Key, t.Index.MemoryMiB, t.Index.CPUs, t.Index.Bytes()>>20)
	if c.config.Template.Spare == 0 {
		return nil
	}
	pool := vmconfig.SparePool(c.config)
	pool.Group = group
	return pool.Fill(ctx, source, c.config.Template.Spare, func(what string, pid int) { fmt.Fprintf(c.out, "%s  %s, pid %d\n", t.Key, what, pid) })
}

// usualShares of processor time are those of others: somebody waits.
const usualShares = 1024

// makeLimit bounds how long making a template takes, and what goes on from it.
const makeLimit = 10 * time.Minute

// templateSource is the source of VMs for pods with some limits.
func templateSource(c config.Config, limits bundle.Limits) (*template.Source, error) {
	accel, _, err := qemu.Resolve(hypervisor.Accelerator(c.Hypervisor.Accelerator), qemu.LocalHost())
	if err != nil {
		return nil, err
	}
	sized := c
	sized.VM = vmconfig.Size(c.VM, limits)
	vm, err := vmconfig.Of(sized, accel)
	if err != nil {
		return nil, err
	}
	store := vmconfig.TemplateStore(c)
	store.Waits = true // a pod may have one made just now
	return &template.Source{Store: store, VM: vmconfig.TemplateVM(c, vm, qemu.New(), version)}, nil
}

func positive(s string) (n int64, err error) {
	const most = 1 << 22
	if _, err = fmt.Sscanf(s, "%d", &n); err != nil || n <= 0 || n > most {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", s, most)
	}
	return n, nil
}

// list prints all templates, and why others could not be made.
func (c *templateCommand) list(args []string) error {
	if err := c.load(args); err != nil {
		return err
	}
	all, err := c.store.List()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tMEMORY\tVCPUS\tDISK\tMADE\tUSED")
	for _, t := range all {
		fmt.Fprintf(w, "%s\t%d MiB\t%d\t%d MiB\t%s\t%s\n", t.Key, t.Index.MemoryMiB, t.Index.CPUs, t.Index.Bytes()>>20,
			t.Index.Made.Local().Format(time.DateTime), t.Used.Local().Format(time.DateTime))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := c.listSpares(); err != nil {
		return err
	}
	failed, err := c.store.Failures()
	for _, key := range slices.Sorted(maps.Keys(failed)) {
		fmt.Fprintf(c.out, "%s has failed: %s\n", key, failed[key])
	}
	return err
}

// listSpares prints the VMs that are kept ready, and where others are.
func (c *templateCommand) listSpares() error {
	pool := vmconfig.SparePool(c.config)
	spares, err := pool.List()
	if err != nil {
		return err
	}
	for _, vm := range spares {
		fmt.Fprintf(c.out, "%s has a spare VM, pid %d, made %s\n", vm.Key, vm.Process.PID, vm.Made().Local().Format(time.DateTime))
	}
	others, err := pool.Others()
	for _, other := range others {
		dir := filepath.Dir(other.Dir)
		fmt.Fprintf(c.out, "%s has spare VMs, too: ccv2 template remove -spare -state-dir %s ends them\n", dir, dir)
	}
	return err
}

// remove removes some templates, or all, with the VMs that are kept ready, or those alone. Pods
// are not concerned.
func (c *templateCommand) remove(args []string) error {
	all := c.flags.Bool("all", false, "remove all templates, and the VMs that are kept ready")
	spares := c.flags.Bool("spare", false, "end the VMs that are kept ready, and keep the templates")
	if err := c.load(args); err != nil {
		return err
	}
	keys := c.flags.Args()
	if *all && *spares || (*all || *spares) == (len(keys) > 0) {
		return errors.New(templateUsage)
	}
	there, err := c.store.List()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, t := range there {
		known[string(t.Key)] = true
		if *all {
			keys = append(keys, string(t.Key))
		}
	}
	for _, key := range keys {
		if !known[key] {
			return fmt.Errorf("there is no template %q; ccv2 template list has them all", key)
		}
	}
	for _, key := range keys {
		if err := c.store.Remove(template.Key(key)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), makeLimit)
	defer cancel()
	pool := vmconfig.SparePool(c.config)
	if *all || *spares {
		return pool.RemoveAll(ctx)
	}
	return pool.Remove(ctx, func(key template.Key) bool { return slices.Contains(keys, string(key)) })
}

// deadSpares are the spare VMs that no sandbox can have any more, which are ended if they are to be.
func deadSpares(ctx context.Context, stateDir string, end bool) (all []operate.Spare, err error) {
	pool := spare.PoolOf(stateDir)
	dead, err := pool.Dead()
	for _, vm := range dead {
		all = append(all, operate.Spare{Dir: vm.Dir(), Made: vm.Made(), PID: vm.Pid()})
	}
	if err == nil && end {
		err = pool.Sweep(ctx)
	}
	return all, err
}
