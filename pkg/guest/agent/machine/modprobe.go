package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/kmod"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// linkModprobe makes modules load on demand: what the kernel executes then is a
// link to the agent. It is made when the guest has booted, because nothing that
// the kernel asks for on the way there should cost a process. An image may have
// a modprobe of its own, which is left alone.
func linkModprobe() error {
	if err := os.MkdirAll(filepath.Dir(layout.ModprobePath), 0o755); err != nil {
		return fmt.Errorf("link modprobe: %w", err)
	}
	if err := os.Symlink(layout.Init, layout.ModprobePath); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("link modprobe: %w", err)
	}
	return nil
}

// iptablesModules are what iptables needs on its older back-end and the kernel
// does not ask for: without them it says that there are no tables.
var iptablesModules = []string{"ip_tables", "ip6_tables"}

// LoadIptables loads them, for a container that may change the network. A failure
// shows in the container, if it needs them at all.
func (m *Machine) LoadIptables() {
	m.iptables.Do(func() {
		for _, request := range iptablesModules {
			if _, err := loadRequested(request); err != nil {
				console.Logf("%v", err)
			}
		}
	})
}

// loadRequested loads what a name or alias means. It reports false when the image has
// no such module.
func loadRequested(request string) (bool, error) {
	b, err := os.ReadFile(layout.ModuleTable)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // the kernel has everything built in
	}
	if err != nil {
		return false, fmt.Errorf("read module table: %w", err)
	}
	table, err := kmod.Parse(string(b))
	if err != nil {
		return false, err
	}
	paths := table.Find(request)
	return len(paths) > 0, loadModules(paths)
}

// Modprobe loads what the kernel asks for and returns the exit status. It runs
// in a process of its own, below a kernel thread: the kernel waits for it.
// It knows no options; the last argument is a module's name or alias. What the
// image does not have is refused without a word: the kernel tells its caller.
func Modprobe(args []string) int {
	if len(args) == 0 {
		return 1
	}
	request := args[len(args)-1]
	found, err := loadRequested(request)
	if err != nil {
		complain(request, err)
	}
	if err != nil || !found {
		return 1
	}
	return 0
}

// complain writes to the kernel's log: the process has no standard error.
func complain(request string, err error) {
	kmsg, openErr := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if openErr != nil {
		return // there is nobody else to tell
	}
	defer kmsg.Close()
	const warning = 4 // priority; the console of a quiet kernel shows less
	fmt.Fprintf(kmsg, "<%d>ccv2-agent: modprobe %s: %v\n", warning, request, err)
}
