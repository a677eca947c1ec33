package cgroups

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// HugePages reserves the guest's huge pages that containers may use. The zero
// value has reserved none.
type HugePages struct {
	mu   sync.Mutex
	held map[string]map[string]uint64 // pages by container and directory of the size
}

// hugePageSizes has one directory per page size that the guest's CPU has.
const hugePageSizes = "/sys/kernel/mm/hugepages"

// Limit reserves what the huge page limits of a container's resources are
// about, in place of what was reserved for it before, and drops limits of 0 for
// page sizes that the guest does not have: a kubelet sets one for each size of
// its host. linux is that section of the container's specification.
func (h *HugePages) Limit(container string, linux map[string]json.RawMessage) error {
	if len(linux["resources"]) == 0 {
		return nil
	}
	resources, err := hyperstart.Decode[map[string]json.RawMessage](linux["resources"])
	if err != nil || len(resources["hugepageLimits"]) == 0 {
		return err
	}
	limits, err := hyperstart.Decode[[]specs.LinuxHugepageLimit](resources["hugepageLimits"])
	if err != nil {
		return err
	}
	kept := []specs.LinuxHugepageLimit{}
	for _, l := range limits {
		dir, size, err := hugePageDir(l.Pagesize)
		if err != nil {
			return err
		}
		_, err = os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist) && l.Limit == 0:
			continue
		case errors.Is(err, fs.ErrNotExist):
			return hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "the guest has no huge pages of %s", l.Pagesize)
		case err != nil:
			return err
		}
		if err := h.reserve(container, dir, l, (l.Limit+size-1)/size, size); err != nil {
			return err
		}
		kept = append(kept, l)
	}
	if resources["hugepageLimits"], err = json.Marshal(kept); err != nil {
		return err
	}
	linux["resources"], err = json.Marshal(resources)
	return err
}

// hugePageDir is the directory of a page size as the OCI specification writes
// it, such as 2MB, and the size in bytes.
func hugePageDir(name string) (dir string, size uint64, err error) {
	for i, unit := range []string{"KB", "MB", "GB"} {
		number, ok := strings.CutSuffix(name, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 {
			break
		}
		kib := n << (10 * i)
		return filepath.Join(hugePageSizes, fmt.Sprintf("hugepages-%dkB", kib)), kib << 10, nil
	}
	return "", 0, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "huge page size %q is not like 2MB", name)
}

// reserve has the kernel set pages aside, so many for the container in all. It
// takes what it finds, so that the result has to be looked at.
func (h *HugePages) reserve(container, dir string, l specs.LinuxHugepageLimit, pages, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.held[container][dir]
	if pages == held {
		return nil
	}
	before, err := hugePageCount(dir)
	if err != nil {
		return err
	}
	others := before - min(before, held)
	more := pages - min(pages, held)
	after := before // when there is no room
	room, err := available()
	if err != nil {
		return err
	}
	if more <= room/size { // else the kernel would take all there is before it gives up
		if err := setHugePageCount(dir, others+pages); err != nil {
			return err
		}
		if after, err = hugePageCount(dir); err != nil {
			return err
		}
	}
	if after < others+pages {
		return errors.Join(setHugePageCount(dir, before), hyperstart.Errorf(hyperstart.ClassResourceExhausted,
			"reserve %d huge pages of %s: the guest has %d MiB of memory left; give the VM more (annotation io.ccv2.vm.memory_mib, or [vm] memory_mib)",
			more, l.Pagesize, room>>20))
	}
	if h.held == nil {
		h.held = map[string]map[string]uint64{}
	}
	if h.held[container] == nil {
		h.held[container] = map[string]uint64{}
	}
	h.held[container][dir] = pages
	return nil
}

// Release releases what was reserved for a container.
func (h *HugePages) Release(container string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for dir, pages := range h.held[container] {
		now, err := hugePageCount(dir)
		if err == nil {
			err = setHugePageCount(dir, now-min(now, pages))
		}
		if err != nil {
			console.Logf("container %s: release huge pages: %v", container, err)
		}
	}
	delete(h.held, container)
}

// available is how much memory the guest could give, in bytes.
func available() (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	return kernfs.KiB(b, "MemAvailable:"), nil
}

func hugePageCount(dir string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(dir, "nr_hugepages"))
	if err != nil {
		return 0, fmt.Errorf("count huge pages: %w", err)
	}
	return kernfs.Number(b), nil
}

func setHugePageCount(dir string, n uint64) error {
	if err := kernfs.Write(filepath.Join(dir, "nr_hugepages"), strconv.FormatUint(n, 10)); err != nil {
		return fmt.Errorf("reserve huge pages: %w", err)
	}
	return nil
}
