package template

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

const (
	// maxExtent is what is copied and checked at once.
	maxExtent = 1 << 20
	// minGap is how many zeros end an extent; fewer are written.
	minGap   = 16 << 10
	pageSize = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newMemory is a file in memory for the RAM of a VM, all zeros.
func newMemory(mib int) (*os.File, error) {
	fd, err := unix.MemfdCreate("ccv2-memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ccv2-memory")
	if err := f.Truncate(int64(mib) << 20); err != nil {
		return nil, errors.Join(fmt.Errorf("create memory: %w", err), f.Close())
	}
	return f, nil
}

// writeMemory writes what is not zeros in memory to file, at the same offsets.
func writeMemory(file, memory *os.File, size int64) (all []Extent, err error) {
	for offset := int64(0); offset < size; {
		start, err := unix.Seek(int(memory.Fd()), offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read memory: %w", err)
		}
		end, err := unix.Seek(int(memory.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("read memory: %w", err)
		}
		if all, err = writeData(file, memory, start, min(end, size), all); err != nil {
			return nil, err
		}
		offset = end
	}
	return all, file.Truncate(size)
}

// writeData writes what is not zeros from start to end, and adds it to all.
func writeData(file, memory *os.File, start, end int64, all []Extent) ([]Extent, error) {
	buf := make([]byte, maxExtent)
	for ; start < end; start += maxExtent {
		part := buf[:min(maxExtent, end-start)]
		if _, err := memory.ReadAt(part, start); err != nil {
			return nil, fmt.Errorf("read memory: %w", err)
		}
		for _, run := range runs(part) {
			content := part[run[0]:run[1]]
			if _, err := file.WriteAt(content, start+run[0]); err != nil {
				return nil, fmt.Errorf("write memory: %w", err)
			}
			all = append(all, Extent{Offset: start + run[0], Length: run[1] - run[0], CRC: crc32.Checksum(content, castagnoli)})
		}
	}
	return all, nil
}

// runs are the parts of b, begin and end, that have no longer stretch of zeros.
func runs(b []byte) (all [][2]int64) {
	zero := make([]byte, pageSize)
	for at := 0; at < len(b); at += pageSize {
		end := min(at+pageSize, len(b))
		if bytes.Equal(b[at:end], zero[:end-at]) {
			continue
		}
		if n := len(all); n > 0 && int64(at)-all[n-1][1] < minGap {
			all[n-1][1] = int64(end)
			continue
		}
		all = append(all, [2]int64{int64(at), int64(end)})
	}
	return all
}

// copiers is how many copy at the same time: more than two take from what the VM needs.
const copiers = 2

// snapshot returns a copy of the template, which is made while the VMM starts. What it reads
// is compared with its checksums. The end of ctx is that of the copy. release waits for it,
// and closes the memory.
func (t *Template) snapshot(ctx context.Context) (_ *hypervisor.Snapshot, release func(), err error) {
	t.touch()
	devices, err := os.ReadFile(filepath.Join(t.path, devicesFile))
	if err != nil {
		return nil, nil, err
	}
	if d := t.Index.Devices; int64(len(devices)) != d.Length || crc32.Checksum(devices, castagnoli) != d.CRC {
		return nil, nil, errors.New("the state of its devices is damaged")
	}
	memory, err := newMemory(t.Index.MemoryMiB)
	if err != nil {
		return nil, nil, err
	}
	var fillErr error
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		fillErr = t.fill(ctx, memory)
	}()
	snap := &hypervisor.Snapshot{Memory: memory, Devices: devices}
	snap.Filled = func() error {
		<-filled
		return fillErr
	}
	release = func() {
		<-filled
		_ = memory.Close()
	}
	return snap, release, nil
}

// errNotCopied is the error of a copy for which there was no time.
var errNotCopied = errors.New("there is no time to copy its memory")

// fill copies the template's memory.
func (t *Template) fill(ctx context.Context, memory *os.File) error {
	file, err := os.Open(filepath.Join(t.path, memoryFile))
	if err != nil {
		return err
	}
	defer file.Close()
	return copyExtents(ctx, memory, file, t.Index.Memory)
}

// copyExtents copies parts of a file to memory. They are written: memory that is mapped would be
// made zeros first, a page at a time, which takes half as long again.
func copyExtents(ctx context.Context, memory io.WriterAt, file io.ReaderAt, extents []Extent) error {
	var (
		next atomic.Int64
		wg   sync.WaitGroup
		errs [copiers]error
	)
	for i := range copiers {
		wg.Go(func() {
			buf := make([]byte, maxExtent)
			for {
				n := int(next.Add(1)) - 1
				if n >= len(extents) || errs[i] != nil {
					return
				}
				if err := ctx.Err(); err != nil {
					errs[i] = fmt.Errorf("%w: %w", errNotCopied, err)
					return
				}
				e := extents[n]
				part := buf[:e.Length]
				if _, err := file.ReadAt(part, e.Offset); err != nil {
					errs[i] = fmt.Errorf("read its memory: %w", err)
				} else if crc32.Checksum(part, castagnoli) != e.CRC {
					errs[i] = fmt.Errorf("its memory is damaged at %d", e.Offset)
				} else if _, err := memory.WriteAt(part, e.Offset); err != nil {
					errs[i] = fmt.Errorf("write memory: %w", err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}
