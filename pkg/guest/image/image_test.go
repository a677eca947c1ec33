package image

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/kmod"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// elfFile makes a minimal ELF with one segment of n bytes.
func elfFile(t *testing.T, n int) []byte {
	t.Helper()
	const header = 64 + 56
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Off: header, Filesz: uint64(n), Memsz: uint64(n)}
	if err := errors.Join(binary.Write(&b, binary.LittleEndian, h), binary.Write(&b, binary.LittleEndian, p)); err != nil {
		t.Fatal(err)
	}
	segment := make([]byte, n)
	if _, err := rand.Read(segment[:n/2]); err != nil {
		t.Fatal(err)
	}
	copy(segment, "Linux version 9.8.7-elf (gcc)")
	return append(b.Bytes(), segment...)
}

// bzImage wraps a payload as the kernel's build does, the unpacked size
// appended.
func bzImage(payload []byte, size int) []byte {
	const setup = 2
	b := make([]byte, (setup+1)*512)
	b[bzSetupSects] = setup
	copy(b[bzMagic:], "HdrS")
	binary.LittleEndian.PutUint16(b[bzVersionOffset:], 0x100)
	copy(b[0x300:], "9.8.7-bz (builder)")
	binary.LittleEndian.PutUint32(b[bzPayloadOffset:], 16)
	payload = binary.LittleEndian.AppendUint32(payload, uint32(size))
	binary.LittleEndian.PutUint32(b[bzPayloadLength:], uint32(len(payload)))
	b = append(b, make([]byte, 16)...)
	return append(append(b, payload...), "after"...)
}

func compress(t *testing.T, data []byte, w io.WriteCloser, b *bytes.Buffer) []byte {
	t.Helper()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestExtractKernel(t *testing.T) {
	const size = 20 << 20 // more than two blocks of the LZ4 legacy format
	kernel := elfFile(t, size)
	payloads := map[string][]byte{}
	var lb, gb, zb bytes.Buffer
	lw := lz4.NewWriter(&lb)
	if err := lw.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	payloads["lz4"] = compress(t, kernel, lw, &lb)
	payloads["gzip"] = compress(t, kernel, gzip.NewWriter(&gb), &gb)
	zw, err := zstd.NewWriter(&zb)
	if err != nil {
		t.Fatal(err)
	}
	payloads["zstd"] = compress(t, kernel, zw, &zb)
	for name, payload := range payloads {
		image := bzImage(payload, len(kernel))
		got, format, err := ExtractKernel(image)
		if err != nil || format != FormatELF || !bytes.Equal(got, kernel) {
			t.Errorf("%s: got %d bytes as %q, %v", name, len(got), format, err)
		}
		if got := kernelVersion(image); got != "9.8.7-bz" {
			t.Errorf("%s: version %q", name, got)
		}
		cut := bzImage(payload[:len(payload)/2], len(kernel))
		if _, _, err := ExtractKernel(cut); err == nil {
			t.Errorf("%s: half a payload accepted", name)
		}
	}
	if got, format, err := ExtractKernel(kernel); err != nil || format != FormatELF || !bytes.Equal(got, kernel) {
		t.Errorf("elf: %q, %v", format, err)
	}
	if got := kernelVersion(kernel); got != "9.8.7-elf" {
		t.Errorf("elf: version %q", got)
	}
	lzma := bzImage([]byte("\x5d\x00\x00 and so on"), 1)
	if got, format, err := ExtractKernel(lzma); err != nil || format != FormatBzImage || !bytes.Equal(got, lzma) {
		t.Errorf("lzma: %q, %v", format, err)
	}
	if _, _, err := ExtractKernel([]byte("text")); !errors.Is(err, errNotBzImage) {
		t.Errorf("text: %v", err)
	}
	outside := bzImage([]byte("12345678"), 1)
	binary.LittleEndian.PutUint32(outside[bzPayloadLength:], 0xffffffff)
	if _, _, err := ExtractKernel(outside); err == nil {
		t.Error("payload outside of the file accepted")
	}
}

// TestXZ has the filter for x86 code, as kernels do, and what follows a stream.
func TestXZ(t *testing.T) {
	kernel := elfFile(t, 1<<20)
	cmd := exec.Command("xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB", "--stdout")
	cmd.Stdin = bytes.NewReader(kernel)
	packed, err := cmd.Output()
	if err != nil {
		t.Skip(err)
	}
	image := bzImage(packed, len(kernel))
	if got, format, err := ExtractKernel(image); err != nil || format != FormatELF || !bytes.Equal(got, kernel) {
		t.Errorf("got %d bytes as %q, %v", len(got), format, err)
	}
	if _, _, err := ExtractKernel(bzImage(packed[:len(packed)/2], len(kernel))); err == nil {
		t.Error("half a payload accepted")
	}
	t.Setenv("PATH", "")
	if got, format, err := ExtractKernel(image); err != nil || format != FormatBzImage || !bytes.Equal(got, image) {
		t.Errorf("without xz: %q, %v", format, err)
	}
	module := filepath.Join(t.TempDir(), "a.ko.xz")
	writeFile(t, module, packed)
	if _, err := readModule(module); !errors.Is(err, errNoXZ) {
		t.Errorf("module without xz: %v", err)
	}
}

// moduleFile makes a module with the given .modinfo fields: an ELF whose only
// other section is the table of names.
func moduleFile(t *testing.T, fields ...string) []byte {
	t.Helper()
	info := strings.Join(fields, "\x00") + "\x00"
	const names = "\x00.modinfo\x00.shstrtab\x00"
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Ehsize: 64, Shoff: uint64(64 + len(info) + len(names)), Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	err := binary.Write(&b, binary.LittleEndian, h)
	b.WriteString(info + names)
	for _, s := range []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names))},
	} {
		err = errors.Join(err, binary.Write(&b, binary.LittleEndian, s))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func moduleDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var packed bytes.Buffer
	gz := compress(t, moduleFile(t, "depends=virtio"), gzip.NewWriter(&packed), &packed)
	for path, data := range map[string][]byte{
		"kernel/drivers/virtio/virtio.ko":          moduleFile(t, "license=GPL", "depends="),
		"kernel/drivers/virtio/virtio_pci.ko":      moduleFile(t, "depends=virtio,crc-helper"),
		"kernel/lib/crc-helper.ko":                 moduleFile(t, "depends=", "softdep=pre: soft missing post: later"),
		"kernel/lib/soft.ko":                       moduleFile(t, "depends="),
		"kernel/lib/later.ko":                      moduleFile(t, "depends="),
		"kernel/drivers/char/virtio_console.ko.gz": gz,
		"kernel/fs/overlayfs/overlay.ko":           moduleFile(t, "alias=fs-overlay", "depends=builtin_one"),
		"kernel/drivers/net/virtio_net.ko":         moduleFile(t, "depends=virtio", "alias=virtio:d00000001v*"),
		"modules.builtin":                          []byte("kernel/lib/builtin-one.ko\n"),
	} {
		writeFile(t, filepath.Join(dir, path), data)
	}
	return dir
}

func TestModuleOrder(t *testing.T) {
	a, m := newArchive(), &Manifest{}
	if err := addModules(a, moduleDir(t), m); err != nil {
		t.Fatal(err)
	}
	want := []string{"virtio", "soft", "crc_helper", "virtio_pci", "virtio_console", "virtio_net", "overlay"}
	if diff := cmp.Diff(want, m.Modules); diff != "" {
		t.Error(diff)
	}
	const list = `boot /lib/modules/kernel/drivers/virtio/virtio.ko
boot /lib/modules/kernel/lib/soft.ko
boot /lib/modules/kernel/lib/crc-helper.ko
boot /lib/modules/kernel/drivers/virtio/virtio_pci.ko
boot /lib/modules/kernel/drivers/char/virtio_console.ko
net /lib/modules/kernel/drivers/net/virtio_net.ko
`
	if diff := cmp.Diff(list, string(a.entries["etc/ccv2/modules"].data)); diff != "" {
		t.Error(diff)
	}
	table, err := kmod.Parse(string(a.entries["etc/ccv2/modprobe"].data))
	if err != nil || len(table) != len(want) {
		t.Errorf("table of %d modules, want %d: %v", len(table), len(want), err)
	}
	for request, want := range map[string][]string{
		"fs-overlay": {"/lib/modules/kernel/fs/overlayfs/overlay.ko"},
		"virtio-pci": {
			"/lib/modules/kernel/drivers/virtio/virtio.ko", "/lib/modules/kernel/lib/soft.ko",
			"/lib/modules/kernel/lib/crc-helper.ko", "/lib/modules/kernel/drivers/virtio/virtio_pci.ko",
		},
		"later": nil,
	} {
		if diff := cmp.Diff(want, table.Find(request)); diff != "" {
			t.Errorf("%s: %s", request, diff)
		}
	}
	if data := a.entries["lib/modules/kernel/drivers/char/virtio_console.ko"].data; !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		t.Error("packed module was not unpacked")
	}
	broken := t.TempDir()
	writeFile(t, filepath.Join(broken, "virtio_pci.ko"), moduleFile(t, "depends=gone"))
	if err := addModules(newArchive(), broken, m); err == nil || !strings.Contains(err.Error(), "needs gone") {
		t.Errorf("missing dependency: %v", err)
	}
}

func TestArchive(t *testing.T) {
	a := newArchive()
	err := errors.Join(a.addFile("/usr/bin/x", 0o755, []byte("12345")), a.addSymlink("lib64", "lib"),
		a.add("dev/console", entry{mode: modeChar | 0o600, major: 5, minor: 1}), a.addFile("usr/bin/x", 0o755, []byte("12345")))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.addFile("usr/bin/x", 0o755, []byte("other")); !errors.Is(err, errDuplicate) {
		t.Errorf("other content at the same path: %v", err)
	}
	if err := a.addFile("lib64/libc.so", 0o755, nil); err == nil {
		t.Error("file below a symbolic link accepted")
	}
	var b bytes.Buffer
	if err := a.writeTo(&b); err != nil {
		t.Fatal(err)
	}
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not installed")
	}
	cmd := exec.Command(cpio, "-tv", "--numeric-uid-gid", "--quiet")
	cmd.Stdin, cmd.Env = &b, []string{"TZ=UTC", "LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		got = append(got, f[0]+" "+strings.Join(f[len(f)-1:], " "))
	}
	want := []string{"drwxr-xr-x dev", "crw------- dev/console", "lrwxrwxrwx lib", "drwxr-xr-x usr", "drwxr-xr-x usr/bin", "-rwxr-xr-x usr/bin/x"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBuildIsReproducible builds twice, with other times and another order of
// creation, and wants the same bytes.
func TestBuildIsReproducible(t *testing.T) {
	program, err := exec.LookPath("true") // has libraries, as crun has
	if err != nil {
		t.Skip(err)
	}
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	var zb bytes.Buffer
	vmlinux := elfFile(t, 1000)
	writeFile(t, kernel, bzImage(compress(t, vmlinux, gzip.NewWriter(&zb), &zb), len(vmlinux)))
	var outs [2]map[string]string
	for i := range outs {
		extra := t.TempDir()
		names := []string{"a", "b/c", "d"}
		for j := range names {
			writeFile(t, filepath.Join(extra, names[(j+i)%3]), []byte("x"))
		}
		if err := os.Symlink("a", filepath.Join(extra, "link")); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		m, err := Build(Options{
			Kernel: kernel, Modules: moduleDir(t), Agent: program, Runtime: program, Out: out,
			Add: []Addition{{Source: extra, Dest: "/extra"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		outs[i] = map[string]string{}
		for _, name := range []string{KernelFile, InitrdFile, ManifestFile} {
			b, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			outs[i][name] = hash(b)
		}
		if m.KernelVersion != "9.8.7-bz" || m.KernelFormat != FormatELF || m.Outputs[1].SHA256 != outs[i][InitrdFile] {
			t.Errorf("manifest: %+v", m)
		}
		checkManifest(t, filepath.Join(out, ManifestFile))
	}
	if diff := cmp.Diff(outs[0], outs[1]); diff != "" {
		t.Error(diff)
	}
}

func checkManifest(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{}
	for _, f := range m.Files {
		paths[f.Path] = true
	}
	for _, want := range []string{layout.Init, layout.RuntimePath, layout.ModuleList, layout.ModuleTable, "/extra/b/c", "/extra/link", "/lib/libc.so.6", "/dev/console", "/tmp"} {
		if !paths[want] {
			t.Errorf("manifest has no %s: %v", want, fmt.Sprint(paths))
		}
	}
}

func TestClosureOfStaticProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "static")
	writeFile(t, program, elfFile(t, 10))
	libs, err := newFinder(nil).closure(program)
	if err != nil || len(libs) != 0 {
		t.Errorf("got %v, %v", libs, err)
	}
}

func TestOverlay(t *testing.T) {
	b, err := Overlay([]Addition{{Source: os.Args[0], Dest: "/init"}})
	if err != nil || !bytes.HasPrefix(b, []byte("070701")) || !bytes.Contains(b[len(b)-64:], []byte(trailer)) {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
	if _, err := Overlay([]Addition{{Source: "/dev/null", Dest: "/x"}}); err == nil {
		t.Error("device accepted")
	}
}
