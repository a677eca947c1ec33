package spare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/jsonfile"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/hostcgroup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// Pool is a directory of spare VMs, which root alone can enter.
type Pool struct {
	Dir   string
	Group Group // of the VMs
	// Idle is how long a VM of those that Fill makes waits for a pod; 0 is for ever.
	Idle time.Duration
}

// Group is the cgroup of VMs that are no sandbox's: [hostcgroup.Aside].
type Group interface {
	Enter(ctx context.Context) error // this process, and so what it starts
	Leave() error
	Quit() error           // moves this process, which was started there, out of it
	Inherit(pid int) error // moves another process to where this one is
	RemoveEmpty()
	Processes() ([]int, error)
}

// PoolOf is the pool of a host, in the directory of all sandboxes.
func PoolOf(stateDir string) *Pool {
	return &Pool{Dir: filepath.Join(stateDir, ".spare"), Group: &hostcgroup.Aside{}}
}

// Names beside those of VMs.
const (
	lockFile   = "lock"   // held by who makes VMs, or removes them
	failedFile = "failed" // why none could be made
	missedFile = "missed" // the key that a full pool had no VM of, the last time
)

// name matches the directory of a VM: its key, number, and who has taken it. One that is no pod's yet,
// or no more, has no key, so that the paths of its sockets are short.
var name = regexp.MustCompile(`^(?:([0-9a-f]{32})\.([0-9]+)(?:\.taken-([0-9]+)-([0-9]+))?|([0-9]+)\.part)$`)

// VM is a spare one.
type VM struct {
	Key     template.Key // of the template that it has gone on from
	Process hostproc.Process
	dir     string
	part    string // the directory where it was made, and ends
	taken   bool   // by a shim
	dead    bool   // nobody can take it any more
}

// vm is the one of a directory with a name that matches.
func (p *Pool) vm(match []string) *VM {
	return &VM{Key: template.Key(match[1]), dir: filepath.Join(p.Dir, match[0]), part: p.part(match[2] + match[5])}
}

func (p *Pool) part(number string) string { return filepath.Join(p.Dir, number+".part") }

// List returns the VMs that are ready, the oldest first. Those whose VMM has ended are left out.
func (p *Pool) List() ([]*VM, error) {
	all, err := p.all()
	if err != nil {
		return nil, fmt.Errorf("list spare vms: %w", err)
	}
	all = slices.DeleteFunc(all, func(vm *VM) bool { return !vm.ready() })
	slices.SortFunc(all, func(a, b *VM) int { return cmp.Compare(a.Process.Start, b.Process.Start) })
	return all, nil
}

// load reads the record of the VM.
func (vm *VM) load() error {
	return jsonfile.Read(filepath.Join(vm.dir, store.SpareRecord), &vm.Process)
}

// Made is when the VMM was started, as today's clock has it; zero where nobody knows.
func (vm *VM) Made() time.Time {
	if vm.Process.Start == 0 {
		return time.Time{}
	}
	return time.Now().Add(-vm.waited())
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
		_ = os.Remove(filepath.Join(p.Dir, missedFile)) // those that are there are of use
		return vm
	}
	return nil
}

// Wanted reports whether VMs of a key are to be made, so that there are n, and nobody makes some.
// A pool that is full of others gives one up that has another one of its kind, and with no
// such for a key that is missed twice, and none was taken in between. When making some has failed not long ago, failed is why.
func (p *Pool) Wanted(key template.Key, n int) (wanted bool, failed string) {
	if n <= 0 {
		return false, ""
	}
	all, err := p.List()
	if err != nil {
		return false, err.Error()
	}
	if _, made := p.makers().Holder(); made {
		return false, ""
	}
	crowded := slices.ContainsFunc(all, func(vm *VM) bool { return count(all, vm.Key) > 1 })
	if len(all) >= n && (count(all, key) > 0 || !crowded && !p.missedTwice(key)) {
		return false, ""
	}
	return true, p.failed()
}

// count is how many VMs are of a key.
func count(all []*VM, key template.Key) (n int) {
	for _, vm := range all {
		if vm.Key == key {
			n++
		}
	}
	return n
}

// missedTwice notes that a full pool has no VM of a key, and reports whether that was noted before.
func (p *Pool) missedTwice(key template.Key) bool {
	path := filepath.Join(p.Dir, missedFile)
	if last, err := os.ReadFile(path); err == nil && string(last) == string(key) {
		return true
	}
	_ = os.WriteFile(path, []byte(key), 0o600) // on a full disk the pool stays as it is
	return false
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

// makers is the lock of who makes VMs, or removes them.
func (p *Pool) makers() template.Lock {
	return template.Lock{Path: filepath.Join(p.Dir, lockFile), Does: "makes or removes spare VMs"}
}

// lock keeps others from making VMs, and from removing them. When one does it is
// errdefs.ErrUnavailable.
func (p *Pool) lock() (unlock func(), err error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	return p.makers().Take()
}

// Sweep ends the VMs that nobody can take any more: those of which the maker or the taker has
// died, or the VMM. While VMs are made it is errdefs.ErrUnavailable.
func (p *Pool) Sweep(ctx context.Context) error {
	return p.remove(ctx, func(context.Context) (func(), error) { return p.lock() }, func(*VM) bool { return false })
}

// RemoveAll ends all VMs but those that a shim has taken, and who makes some, and removes the pool
// when nothing else is in it.
func (p *Pool) RemoveAll(ctx context.Context) error {
	return p.remove(ctx, p.makers().TakeOver, func(*VM) bool { return true }, failedFile, missedFile, lockFile, "")
}

// Remove ends the VMs of some templates that are ready, and who makes some.
func (p *Pool) Remove(ctx context.Context, which func(template.Key) bool) error {
	return p.remove(ctx, p.makers().TakeOver, func(vm *VM) bool { return which(vm.Key) })
}

// remove ends what nobody can take any more, and the VMs that are ready which unwanted reports. Files are
// removed as far as they can be, while nobody else has the lock: who waits for it notices.
func (p *Pool) remove(ctx context.Context, lock func(context.Context) (func(), error), unwanted func(*VM) bool, files ...string) error {
	if _, err := os.Stat(p.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := lock(ctx)
	if err != nil {
		return fmt.Errorf("remove spare vms: %w", err)
	}
	defer unlock()
	if err := errors.Join(p.clean(ctx, unwanted), waiters{p}.endUseless(ctx)); err != nil {
		return fmt.Errorf("remove spare vms: %w", err)
	}
	p.Group.RemoveEmpty()
	for _, name := range files {
		_ = os.Remove(filepath.Join(p.Dir, name))
	}
	return nil
}

// clean is remove with the lock held.
func (p *Pool) clean(ctx context.Context, unwanted func(*VM) bool) error {
	all, err := p.all()
	var errs []error
	for _, vm := range all {
		if vm.dead || vm.ready() && unwanted(vm) {
			errs = append(errs, vm.end(ctx))
		}
	}
	return errors.Join(append(errs, err)...)
}

// Dead are the VMs that [Pool.Sweep] ends.
func (p *Pool) Dead() ([]*VM, error) {
	all, err := p.all()
	_, made := p.makers().Holder()
	return slices.DeleteFunc(all, func(vm *VM) bool { return !vm.dead || made && vm.Key == "" }), err
}

// all are the VMs of the pool. dead has been set in those that nobody can take any more, where
// nobody makes VMs.
func (p *Pool) all() (all []*VM, err error) {
	entries, err := os.ReadDir(p.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		m := name.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		vm := p.vm(m)
		loaded := vm.load()
		switch {
		case m[3] != "":
			vm.taken = true
			vm.dead = !takerOf(m[3], m[4]).Alive()
		default:
			vm.dead = m[1] == "" || loaded != nil || !vm.Process.Alive()
		}
		all = append(all, vm)
	}
	return all, nil
}

// Dir is the directory of the VM.
func (vm *VM) Dir() string { return vm.dir }

// Pid is that of the VMM; 0 where it has ended.
func (vm *VM) Pid() int {
	if !vm.Process.Alive() {
		return 0
	}
	return vm.Process.PID
}

// ready reports whether a shim can take the VM.
func (vm *VM) ready() bool { return !vm.dead && !vm.taken }

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
