package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/kernfs"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// Quiesce prepares a guest that has booted, and in which no pod was started, for being
// saved: what every pod needs is there, and what is free is zeros.
func (m *Machine) Quiesce(ctx context.Context) error {
	if err := m.awaitShareModules(ctx); err != nil {
		return err
	}
	m.load(&m.net, layout.PhaseNet)
	m.LoadLate()
	m.load(&m.plug, layout.PhasePlug)
	if err := DropCaches(true); err != nil {
		return err
	}
	debug.FreeOSMemory()
	return clearFree(ctx)
}

const (
	clearChunk   = 2 << 20
	clearReserve = 8 << 20 // stays free, so that nothing has to be taken away
	// clearMost bounds what the host has to give for it. Of more the boot has used little.
	clearMost = 512 << 20
)

// reserves are what the kernel keeps free for itself: of 512 MiB 23, for huge pages, and of
// more in each zone for what can use no other.
var reserves = []struct{ path, least string }{
	{"/proc/sys/vm/min_free_kbytes", "1024"},
	{"/proc/sys/vm/lowmem_reserve_ratio", "0 0 0 0 0"},
}

// withoutReserves does something while the kernel keeps next to nothing free.
func withoutReserves(do func() error) (err error) {
	for _, r := range reserves {
		kept, readErr := os.ReadFile(r.path)
		if readErr != nil {
			return readErr
		}
		// The kernel takes as many numbers as it has zones.
		least := strings.Join(strings.Fields(r.least)[:min(len(strings.Fields(r.least)), len(strings.Fields(string(kept))))], " ")
		if err := kernfs.Write(r.path, least); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, kernfs.Write(r.path, strings.Join(strings.Fields(string(kept)), " "))) }()
	}
	return do()
}

// clearFree makes the memory that was used and is free zeros: the kernel gives out none
// that is not.
func clearFree(ctx context.Context) error {
	if err := withoutReserves(func() error { return takeFree(ctx) }); err != nil {
		return fmt.Errorf("clear free memory: %w", err)
	}
	return nil
}

// takeFree takes the memory that is free, and gives it back.
func takeFree(ctx context.Context) (err error) {
	var chunks [][]byte
	defer func() {
		for _, chunk := range chunks {
			err = errors.Join(err, unix.Munmap(chunk))
		}
	}()
	for ctx.Err() == nil && len(chunks) < clearMost/clearChunk {
		info, err := os.ReadFile("/proc/meminfo")
		if err != nil {
			return err
		}
		if kernfs.KiB(info, "MemFree:") < clearChunk+clearReserve {
			return nil
		}
		chunk, err := unix.Mmap(-1, 0, clearChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		chunks = append(chunks, chunk)
		_ = unix.Madvise(chunk, unix.MADV_HUGEPAGE) // fewer tables, which are used as well
		if err := unix.Madvise(chunk, unix.MADV_POPULATE_WRITE); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// rndReseedCRNG is the ioctl of random(4) that has what was added used at once.
const rndReseedCRNG = 0x5207

// Entropy is 32 to 512 bytes.
const (
	minEntropy = 32
	maxEntropy = 512
)

// Reseed has the kernel make its random numbers from entropy, too, at once.
func Reseed(entropy []byte) error {
	if len(entropy) < minEntropy || len(entropy) > maxEntropy {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "reseed: %d bytes of entropy, want %d to %d", len(entropy), minEntropy, maxEntropy)
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("reseed: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(entropy); err != nil {
		return fmt.Errorf("reseed: add entropy: %w", err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), rndReseedCRNG, 0); err != nil {
		return fmt.Errorf("reseed: use entropy: %w", err)
	}
	return nil
}
