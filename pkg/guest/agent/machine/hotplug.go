package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
)

// RescanPCI makes the kernel look for plugged devices, for machines that do not
// announce them.
func RescanPCI() error {
	const path = "/sys/bus/pci/rescan"
	if err := kernfs.Write(path, "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rescan pci: %w", err)
	}
	return nil
}

// OnlineCPUMem brings up what was plugged in and is not used yet.
func OnlineCPUMem() error {
	return errors.Join(onlineCPUs(), bringOnline("/sys/devices/system/memory/memory[0-9]*/state", "offline", "online"))
}

func onlineCPUs() error { return bringOnline("/sys/devices/system/cpu/cpu[0-9]*/online", "0", "1") }

// bringOnline writes on to every file of the pattern that contains off.
func bringOnline(pattern, off, on string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(b)) != off {
			continue
		}
		if err := kernfs.Write(path, on); err != nil {
			errs = append(errs, fmt.Errorf("bring online: %w", err))
		}
	}
	return errors.Join(errs...)
}
