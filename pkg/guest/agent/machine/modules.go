package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

func readModuleList() (string, error) {
	b, err := os.ReadFile(layout.ModuleList)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// loadModules loads the modules in order. A module that is loaded already is
// not an error.
func loadModules(paths []string) error {
	var errs []error
	for _, p := range paths {
		if err := loadModule(p); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// load loads the modules of a phase, once. One that cannot be loaded shows when it
// is needed; most guests need few of them.
func (m *Machine) load(once *sync.Once, phase layout.Phase) {
	once.Do(func() {
		if err := loadModules(layout.ModulesOf(m.modules, phase)); err != nil {
			console.Logf("%v", err)
		}
	})
}

// LoadShare loads what mounting the share needs. It is to be called once.
func (m *Machine) LoadShare() {
	defer close(m.shared)
	if err := loadModules(layout.ModulesOf(m.modules, layout.PhaseShare)); err != nil {
		console.Logf("%v", err) // shows when the share is mounted
	}
}

func (m *Machine) awaitShareModules(ctx context.Context) error {
	select {
	case <-m.shared:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// LoadLate loads what is not needed before a container runs.
func (m *Machine) LoadLate() {
	m.load(&m.late, layout.PhaseLate)
	reportFree()
}

// reportedOrder makes what is given back to the host pieces of 64 KiB. Of 2 MiB, the kernel's
// choice, hardly any is free as a whole: there are pages here and there that are in use.
const reportedOrder = "4"

// reportFree has the kernel tell the host what is free, in smaller pieces than it would.
// It is the driver of the balloon that tells it; without one nobody does.
func reportFree() {
	if err := kernfs.Write("/sys/module/page_reporting/parameters/page_reporting_order", reportedOrder); err != nil && !errors.Is(err, os.ErrNotExist) {
		console.Logf("give free memory back to the host in smaller pieces: %v", err)
	}
}

func loadModule(path string) error {
	f, err := os.Open(path) //nolint:gosec // the image's own list and table name the modules
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", filepath.Base(path), err)
	}
	return nil
}

// hasPCI reports whether the machine has a PCI bus; without one its virtio
// devices are on the memory bus.
func hasPCI() bool {
	entries, err := os.ReadDir("/sys/bus/pci/devices")
	return err == nil && len(entries) > 0
}
