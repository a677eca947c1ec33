package image

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// KernelFormat is the form in which a kernel is booted.
type KernelFormat string

// Formats. An ELF boots faster because nothing is unpacked in the guest.
const (
	FormatELF     KernelFormat = "elf"
	FormatBzImage KernelFormat = "bzimage"
)

// maxKernel bounds an unpacked kernel in bytes; distribution kernels have 30
// to 80 MiB.
const maxKernel = 512 << 20

var errNotBzImage = errors.New("neither an ELF file nor a bzImage")

// bzImage header fields, from the x86 boot protocol.
const (
	bzSetupSects    = 0x1f1
	bzMagic         = 0x202
	bzVersionOffset = 0x20e
	bzPayloadOffset = 0x248
	bzPayloadLength = 0x24c
	bzHeaderEnd     = 0x250
)

// ExtractKernel returns the ELF kernel in data, which is a bzImage or already
// an ELF. When the payload has a compression that is not supported (lzma, bzip2,
// lzo, and xz where that program is missing), data comes back unchanged as
// FormatBzImage: it boots, slower.
func ExtractKernel(data []byte) ([]byte, KernelFormat, error) {
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return data, FormatELF, nil
	}
	payload, err := bzPayload(data)
	if err != nil {
		return nil, "", fmt.Errorf("extract kernel: %w", err)
	}
	r, err := decompressor(payload)
	if err != nil {
		return nil, "", fmt.Errorf("extract kernel: %w", err)
	}
	if r == nil {
		return data, FormatBzImage, nil
	}
	kernel, err := readELF(r)
	if err != nil {
		return nil, "", fmt.Errorf("extract kernel: %w", err)
	}
	return kernel, FormatELF, nil
}

func bzPayload(data []byte) ([]byte, error) {
	if len(data) < bzHeaderEnd || string(data[bzMagic:bzMagic+4]) != "HdrS" {
		return nil, errNotBzImage
	}
	setup := int64(data[bzSetupSects])
	if setup == 0 {
		setup = 4 // the boot protocol's default
	}
	start := (setup+1)*512 + int64(binary.LittleEndian.Uint32(data[bzPayloadOffset:]))
	length := int64(binary.LittleEndian.Uint32(data[bzPayloadLength:]))
	if start+length > int64(len(data)) || length < 8 {
		return nil, fmt.Errorf("bzimage payload at %d with %d bytes is outside of the file", start, length)
	}
	return data[start : start+length], nil
}

// decompressor returns nil for a compression that is not supported.
func decompressor(payload []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}):
		// The kernel's build appends the unpacked size, which the legacy
		// format would take for the size of one more block.
		return lz4.NewReader(bytes.NewReader(payload[:len(payload)-4])), nil
	case bytes.HasPrefix(payload, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, err
		}
		r.Multistream(false)
		return r, nil
	case bytes.HasPrefix(payload, xzMagic):
		kernel, err := unxz(payload)
		if errors.Is(err, errNoXZ) {
			return nil, nil //nolint:nilnil // as below
		}
		return bytes.NewReader(kernel), err
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(bytes.NewReader(payload), zstd.WithDecoderConcurrency(1))
	}
	return nil, nil //nolint:nilnil // no reader is an answer here, not a failure
}

// readELF reads until r ends. Trailing bytes that the kernel's build appended
// can make a decompressor complain at the very end, so an error counts only
// when what was read is not a whole ELF file.
func readELF(r io.Reader) ([]byte, error) {
	kernel, readErr := io.ReadAll(io.LimitReader(r, maxKernel+1))
	if len(kernel) > maxKernel {
		return nil, fmt.Errorf("kernel has more than %d bytes unpacked", maxKernel)
	}
	if err := wholeELF(kernel); err != nil {
		return nil, errors.Join(err, readErr)
	}
	return kernel, nil
}

// wholeELF checks that all segments are within data.
func wholeELF(data []byte) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("unpacked kernel: %w", err)
	}
	for _, p := range f.Progs {
		if p.Off+p.Filesz > uint64(len(data)) {
			return fmt.Errorf("unpacked kernel: segment at %d ends after the file", p.Off)
		}
	}
	return nil
}

// kernelVersion returns the release of a bzImage, e.g. "6.1.0-25-amd64", or of
// an ELF by its banner; "" when there is none.
func kernelVersion(data []byte) string {
	if len(data) >= bzHeaderEnd && string(data[bzMagic:bzMagic+4]) == "HdrS" {
		start := int(binary.LittleEndian.Uint16(data[bzVersionOffset:])) + 0x200
		if start < len(data) {
			return firstWord(data[start:])
		}
	}
	const banner = "Linux version "
	if _, after, ok := bytes.Cut(data, []byte(banner)); ok {
		return firstWord(after)
	}
	return ""
}

func firstWord(b []byte) string {
	const maxRelease = 64 // __NEW_UTS_LEN
	b = b[:min(len(b), maxRelease)]
	if i := bytes.IndexAny(b, " \x00\n"); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
