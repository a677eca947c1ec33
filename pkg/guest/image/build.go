package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/kmod"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
)

// Names of the files that Build writes.
const (
	KernelFile   = "vmlinux"
	InitrdFile   = "initrd.img"
	ManifestFile = "manifest.json"
)

// moduleSets are the modules of each phase; those that a kernel has built in
// or lacks are left out. Drivers of devices are not left to demand: the kernel
// announces devices to user space, but asks for no driver.
var moduleSets = []struct {
	phase layout.Phase
	names []string
}{
	{layout.PhaseBoot, []string{"virtio_pci", "virtio_console"}},
	{layout.PhaseMMIO, []string{"virtio_mmio"}},
	{layout.PhaseShare, []string{"virtiofs", "9p", "9pnet_virtio"}},
	{layout.PhaseNet, []string{"virtio_net"}},
	{layout.PhaseLate, []string{"virtio_blk", "virtio_rng", "virtio_balloon"}},
	{layout.PhasePlug, []string{"virtio_mem"}},
	{layout.PhaseDemand, []string{"overlay", "erofs", "ext4", "crc32c_generic", "af_packet"}},
	{layout.PhaseDemand, []string{"bridge", "veth", "dummy", "tun"}},
	// What iptables, on either of its back-ends, and nft need to filter and
	// translate addresses in a container.
	{layout.PhaseDemand, []string{
		"nf_tables", "nft_compat", "nft_chain_nat", "nft_ct", "nft_nat", "nft_masq", "nft_redir",
		"ip_tables", "iptable_filter", "iptable_mangle", "iptable_nat",
		"ip6_tables", "ip6table_filter", "ip6table_mangle", "ip6table_nat",
		"xt_REDIRECT", "xt_MASQUERADE", "xt_nat", "xt_mark",
		"xt_addrtype", "xt_comment", "xt_conntrack", "xt_multiport", "xt_owner", "xt_tcpudp",
		// Rejecting, logging, limits, marks of connections, shares of traffic, proxies.
		"ipt_REJECT", "ip6t_REJECT", "nft_reject", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6",
		"xt_LOG", "nft_log", "nf_log_syslog", "xt_NFLOG", "xt_limit", "nft_limit", "xt_hashlimit", "xt_connlimit", "xt_recent", "nft_quota",
		"xt_connmark", "xt_CT", "iptable_raw", "ip6table_raw", "xt_statistic", "nft_numgen", "nft_hash",
		"xt_TPROXY", "nft_tproxy", "xt_socket", "nft_socket", "xt_TCPMSS", "xt_tcpmss", "xt_NETMAP", "xt_DSCP", "xt_dscp",
		"xt_state", "xt_length", "xt_iprange", "xt_physdev", "xt_mac", "xt_pkttype", "xt_u32", "xt_bpf", "xt_cgroup", "ipt_rpfilter",
		"nft_fib", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6", "nft_objref", "xt_NFQUEUE", "nft_queue",
		"nfnetlink_log", "nfnetlink_queue",
	}},
}

// Options say what goes into the image.
type Options struct {
	Kernel  string   // bzImage or ELF
	Modules string   // directory /lib/modules/<release>; "" means none
	Agent   string   // ccv2-agent binary, becomes /init
	Runtime string   // crun or runc binary
	Roots   []string // unpacked packages, searched for libraries before the host
	Add     []Addition
	Out     string // directory, made when missing
}

// Addition is a file or directory of the host that is copied into the image.
type Addition struct {
	Source string
	Dest   string // absolute path in the guest
}

// Manifest says what an image was made of.
type Manifest struct {
	KernelVersion string       `json:"kernelVersion"`
	KernelFormat  KernelFormat `json:"kernelFormat"`
	Modules       []string     `json:"modules"` // names, in load order
	Outputs       []File       `json:"outputs"` // the kernel and the initramfs
	Files         []File       `json:"files"`   // members of the initramfs
}

// File is one file with its content's hash.
type File struct {
	Path   string `json:"path"`
	Mode   string `json:"mode,omitempty"` // octal, type included
	Size   int    `json:"size"`
	SHA256 string `json:"sha256,omitempty"`
}

// Build writes kernel, initramfs and manifest to opts.Out.
func Build(opts Options) (*Manifest, error) {
	image, err := os.ReadFile(opts.Kernel)
	if err != nil {
		return nil, fmt.Errorf("build image: kernel: %w", err)
	}
	m := &Manifest{KernelVersion: kernelVersion(image)}
	kernel, format, err := ExtractKernel(image)
	if err != nil {
		return nil, fmt.Errorf("build image: %s: %w", opts.Kernel, err)
	}
	m.KernelFormat = format
	a, err := assemble(opts, m)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	var initrd bytes.Buffer
	if err := a.writeTo(&initrd); err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	m.describe(a, kernel, initrd.Bytes())
	if err := writeOutputs(opts.Out, m, kernel, initrd.Bytes()); err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return m, nil
}

// assemble collects the members of the initramfs.
func assemble(opts Options, m *Manifest) (*archive, error) {
	a := newArchive()
	if err := addSkeleton(a); err != nil {
		return nil, err
	}
	if err := addProgram(a, layout.Init, opts.Agent); err != nil {
		return nil, err
	}
	if err := addProgram(a, layout.RuntimePath, opts.Runtime); err != nil {
		return nil, err
	}
	libs, err := newFinder(opts.Roots).closure(opts.Runtime)
	if err != nil {
		return nil, err
	}
	for _, lib := range libs {
		if err := addProgram(a, "/lib/"+lib.name, lib.path); err != nil {
			return nil, err
		}
	}
	if err := addModules(a, opts.Modules, m); err != nil {
		return nil, err
	}
	for _, add := range opts.Add {
		if err := addTree(a, add); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// addSkeleton makes the directories, the links through which every dynamic
// loader finds /lib, and the console that the kernel opens for init.
func addSkeleton(a *archive) error {
	var errs []error
	for _, dir := range []string{"dev", "etc", "lib", "proc", "root", "run", "sys", "usr", "var"} {
		errs = append(errs, a.addDir(dir, 0o755))
	}
	errs = append(errs, a.addDir("tmp", 0o1777),
		a.addSymlink("lib64", "lib"), a.addSymlink("usr/lib", "../lib"), a.addSymlink("usr/lib64", "../lib"),
		a.add("dev/console", entry{mode: modeChar | 0o600, major: 5, minor: 1}),
		a.addFile("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n")),
		a.addFile("etc/group", 0o644, []byte("root:x:0:\n")))
	return errors.Join(errs...)
}

func addProgram(a *archive, dest, source string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	return a.addFile(dest, 0o755, data)
}

// addModules adds the modules of all sets, the list of those that the agent
// loads by itself, and the table of all.
func addModules(a *archive, dir string, m *Manifest) error {
	var list []byte
	var table kmod.Table
	if dir != "" {
		tree, err := openModules(dir)
		if err != nil {
			return err
		}
		r := &resolver{tree: tree, seen: map[string]bool{}}
		for _, set := range moduleSets {
			first := len(r.ordered)
			for _, name := range set.names {
				if _, err := r.add(name); err != nil {
					return err
				}
			}
			for _, mod := range r.ordered[first:] {
				entry := mod.entry()
				if err := a.addFile(entry.Path, 0o644, mod.data); err != nil {
					return err
				}
				if set.phase != layout.PhaseDemand {
					list = layout.AppendModule(list, set.phase, entry.Path)
				}
				table = append(table, entry)
				m.Modules = append(m.Modules, mod.name)
			}
		}
	}
	return errors.Join(
		a.addFile(layout.ModuleList, 0o644, list),
		a.addFile(layout.ModuleTable, 0o644, table.Append(nil)))
}

// addTree copies files, directories and symbolic links; anything else in the
// source is an error.
func addTree(a *archive, add Addition) error {
	return filepath.WalkDir(add.Source, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(add.Source, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		dest := filepath.ToSlash(filepath.Join(add.Dest, rel))
		switch info.Mode().Type() {
		case 0:
			data, err := os.ReadFile(p) //nolint:gosec // the tree is the builder's own
			if err != nil {
				return err
			}
			return a.addFile(dest, info.Mode(), data)
		case fs.ModeDir:
			return a.addDir(dest, unixPerm(info.Mode()))
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return a.addSymlink(dest, target)
		}
		return fmt.Errorf("add %s: neither a file nor a directory nor a symbolic link", p)
	})
}

func unixPerm(mode fs.FileMode) uint32 {
	perm := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		perm |= 0o1000
	}
	return perm
}

// describe fills in the lists of files.
func (m *Manifest) describe(a *archive, kernel, initrd []byte) {
	m.Outputs = []File{
		{Path: KernelFile, Size: len(kernel), SHA256: hash(kernel)},
		{Path: InitrdFile, Size: len(initrd), SHA256: hash(initrd)},
	}
	for _, name := range a.names() {
		e := a.entries[name]
		f := File{Path: "/" + name, Mode: fmt.Sprintf("%06o", e.mode), Size: len(e.data)}
		if e.mode&0o170000 == modeRegular {
			f.SHA256 = hash(e.data)
		}
		m.Files = append(m.Files, f)
	}
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func writeOutputs(dir string, m *Manifest, kernel, initrd []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{KernelFile, kernel}, {InitrdFile, initrd}, {ManifestFile, append(manifest, '\n')}} {
		if err := writeAtomic(filepath.Join(dir, f.name), f.data); err != nil {
			return err
		}
	}
	return nil
}

// writeAtomic replaces the file in one step, since a VM may be booting from
// the old one.
func writeAtomic(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Overlay returns an archive that can be appended to an initramfs; its members
// replace those of the same path.
func Overlay(additions []Addition) ([]byte, error) {
	a := newArchive()
	for _, add := range additions {
		if err := addTree(a, add); err != nil {
			return nil, fmt.Errorf("build overlay: %w", err)
		}
	}
	var b bytes.Buffer
	if err := a.writeTo(&b); err != nil {
		return nil, fmt.Errorf("build overlay: %w", err)
	}
	return b.Bytes(), nil
}
