package spare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// Pool is a directory of spare VMs, which root alone can enter.
type Pool struct{ Dir string }

// PoolOf is the pool of a host, in the directory of all sandboxes.
func PoolOf(stateDir string) *Pool { return &Pool{Dir: filepath.Join(stateDir, ".spare")} }

// Names beside those of VMs.
const (
	lockFile   = "lock"   // held by who makes VMs, or removes them
	failedFile = "failed" // why none could be made
)

// name matches the directory of a VM: its key, number, and who has taken it. One that is no pod's yet,
// or no more, has no key, so that the paths of its sockets are short.
var name = regexp.MustCompile(`^(?:([0-9a-f]{32})\.([0-9]+)(?:\.taken-([0-9]+)-([0-9]+))?|([0-9]+)\.part)$`)

// VM is a spare one.
type VM struct {
	Key     template.Key // of the template that it has gone on from
	Process hostproc.Process
	Made    time.Time
	dir     string
	part    string // the directory where it was made, and ends
}

// vm is the one of a directory with a name that matches.
func (p *Pool) vm(match []string) *VM {
	return &VM{Key: template.Key(match[1]), dir: filepath.Join(p.Dir, match[0]), part: p.part(match[2] + match[5])}
}

func (p *Pool) part(number string) string { return filepath.Join(p.Dir, number+".part") }

// List returns the VMs that are ready. Those whose VMM has ended are left out.
func (p *Pool) List() ([]*VM, error) {
	entries, err := os.ReadDir(p.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list spare vms: %w", err)
	}
	var all []*VM
	for _, e := range entries {
		m := name.FindStringSubmatch(e.Name())
		if m == nil || m[1] == "" || m[3] != "" {
			continue
		}
		vm := p.vm(m)
		if vm.load() == nil && vm.Process.Alive() {
			all = append(all, vm)
		}
	}
	return all, nil
}

// load reads the record of the VM.
func (vm *VM) load() error {
	path := filepath.Join(vm.dir, store.SpareRecord)
	if err := jsonfile.Read(path, &vm.Process); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	vm.Made = info.ModTime()
	return nil
}

// Claim takes a VM of a key out of the pool; nil when there is none. What its caller does not
// use is ended by [Pool.Sweep], once this process has ended.
func (p *Pool) Claim(key template.Key) *VM {
	self, err := hostproc.Of("taker", os.Getpid())
	if err != nil {
		return nil
	}
	all, err := p.List()
	if err != nil {
		return nil
	}
	for _, vm := range all {
		to := fmt.Sprintf("%s.taken-%d-%d", vm.dir, self.PID, self.Start)
		if vm.Key != key || os.Rename(vm.dir, to) != nil { // another one has it
			continue
		}
		vm.dir = to
		return vm
	}
	return nil
}

// Wanted reports whether there are fewer than n VMs of a key, and nobody makes one. When that
// has failed not long ago, failed is why.
func (p *Pool) Wanted(key template.Key, n int) (wanted bool, failed string) {
	if n <= 0 {
		return false, ""
	}
	all, err := p.List()
	if err != nil {
		return false, err.Error()
	}
	for _, vm := range all {
		if vm.Key == key {
			n--
		}
	}
	if n <= 0 {
		return false, ""
	}
	return true, p.failed()
}

// retryAfter is how long nobody tries again to make what has failed.
const retryAfter = 10 * time.Minute

// failed is why no VM could be made, not long ago.
func (p *Pool) failed() string {
	path := filepath.Join(p.Dir, failedFile)
	info, err := os.Stat(path)
	if err != nil || time.Since(info.ModTime()) > retryAfter {
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func (p *Pool) setFailed(cause error) {
	path := filepath.Join(p.Dir, failedFile)
	if cause == nil {
		_ = os.Remove(path)
		return
	}
	_ = os.WriteFile(path, []byte(cause.Error()+"\n"), 0o600) // on a full disk it is tried again sooner
}

// lock keeps others from making VMs, and from removing them. When one does it is
// errdefs.ErrUnavailable.
func (p *Pool) lock() (unlock func(), err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	f, err := template.LockFile(filepath.Join(p.Dir, lockFile), "makes or removes spare VMs")
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// Sweep ends the VMs that nobody can take any more: those of which the maker or the taker has
// died, or the VMM. While VMs are made it is errdefs.ErrUnavailable.
func (p *Pool) Sweep(ctx context.Context) error {
	return p.remove(ctx, func(*VM) bool { return false })
}

// RemoveAll ends all VMs but those that a shim has taken, and removes the pool when nothing else
// is in it. While VMs are made it is errdefs.ErrUnavailable.
func (p *Pool) RemoveAll(ctx context.Context) error {
	return p.remove(ctx, func(*VM) bool { return true }, failedFile, lockFile, "")
}

// Remove ends the VMs of some templates that are ready. While VMs are made it is
// errdefs.ErrUnavailable.
func (p *Pool) Remove(ctx context.Context, which func(template.Key) bool) error {
	return p.remove(ctx, func(vm *VM) bool { return which(vm.Key) })
}

// remove is Sweep, and ends the VMs that are ready which unwanted reports. Files are removed as far as
// they can be, while nobody else has the lock: who waits for it notices.
func (p *Pool) remove(ctx context.Context, unwanted func(*VM) bool, files ...string) error {
	if _, err := os.Stat(p.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := p.lock()
	if err != nil {
		return fmt.Errorf("remove spare vms: %w", err)
	}
	defer unlock()
	if err := p.clean(ctx, unwanted); err != nil {
		return fmt.Errorf("remove spare vms: %w", err)
	}
	for _, name := range files {
		_ = os.Remove(filepath.Join(p.Dir, name))
	}
	return nil
}

// clean is remove with the lock held.
func (p *Pool) clean(ctx context.Context, unwanted func(*VM) bool) error {
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		m := name.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		vm := p.vm(m)
		loaded := vm.load()
		switch {
		case m[3] != "":
			if takerOf(m[3], m[4]).Alive() {
				continue
			}
		case m[1] != "" && loaded == nil && vm.Process.Alive() && !unwanted(vm):
			continue
		}
		errs = append(errs, vm.end(ctx))
	}
	return errors.Join(errs...)
}

// takerOf is the process that a name has: its pid, and when it has started, as others get the pid later.
func takerOf(pid, start string) (p hostproc.Process) {
	p.PID, _ = strconv.Atoi(pid) // that of nobody where the number is none
	p.Start, _ = strconv.ParseUint(start, 10, 64)
	return p
}

// end ends the VM and removes what it has. It is taken out of the pool first, so that no
// shim gets one that ends.
func (vm *VM) end(ctx context.Context) error {
	if vm.dir != vm.part {
		switch err := os.Rename(vm.dir, vm.part); {
		case errors.Is(err, os.ErrNotExist):
			return nil // a shim has it
		case err != nil:
			return err
		}
		vm.dir = vm.part
	}
	if err := vm.load(); err == nil {
		if err := vm.Process.Kill(ctx); err != nil {
			return err
		}
	} else if err := killUsers(ctx, vm.dir); err != nil {
		return err
	}
	return os.RemoveAll(vm.dir)
}

// killUsers ends the VMM whose maker has died before it could record it: its arguments have
// the directory. So have those of a VMM that was moved since, which is why no directory has the
// name of an earlier one.
func killUsers(ctx context.Context, dir string) error {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		args, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(args), "path="+strings.ReplaceAll(dir, ",", ",,")+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if p, err := hostproc.Of("VMM of a spare vm", pid); err == nil {
			errs = append(errs, p.Kill(ctx))
		}
	}
	return errors.Join(errs...)
}
