package main

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// component is a package of the bill of materials.
type component struct {
	Name     string `json:"name"`
	SPDXID   string `json:"SPDXID"`
	Version  string `json:"versionInfo"`
	Download string `json:"downloadLocation"`
	Origin   string `json:"sourceInfo"`
	Analyzed bool   `json:"filesAnalyzed"` // never
}

// document adds the bill of materials, in the format of SPDX 2.3, and the licences.
func (b *bundle) document() error {
	var components []component
	for _, find := range []func() ([]component, error){b.packages, b.goModules, b.crates, b.crun} {
		found, err := find()
		if err != nil {
			return err
		}
		components = append(components, found...)
	}
	components = distinct(components)
	relations := make([]map[string]string, len(components))
	for i := range components {
		c := &components[i]
		c.SPDXID, c.Download = fmt.Sprintf("SPDXRef-%d", i), "NOASSERTION"
		relations[i] = map[string]string{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": c.SPDXID}
	}
	encoded, err := json.MarshalIndent(map[string]any{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": b.name(),
		"documentNamespace": "https://github.com/ccv2/containerd-shim-ccv2/" + b.name(),
		"creationInfo":      map[string]any{"created": b.time.Format(time.RFC3339), "creators": []string{"Tool: ccv2-dist"}},
		"packages":          components, "relationships": relations,
	}, "", "\t")
	b.files["sbom.spdx.json"] = file{data: append(encoded, '\n'), mode: 0o644}
	b.files["licenses/SOURCES"] = file{data: []byte(sources), mode: 0o644}
	return errors.Join(err, b.addLicenses("common", "/usr/share/common-licenses"))
}

// distinct sorts components. What comes from two places is there twice: a library that a
// package has brought, and that is linked into another program.
func distinct(components []component) []component {
	slices.SortFunc(components, func(x, y component) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Version, y.Version), cmp.Compare(x.Origin, y.Origin))
	})
	return slices.Compact(components)
}

// sources says where the source of what is here is.
const sources = `sbom.spdx.json names each part with its version. Their sources:

a package of the distribution   Debian's source package of that version
crun                            Debian 13's source package, with the patches in hack/ of ccv2
crate                           the crate of that version; virtiofsd with the patches in hack/ of ccv2
Go module                       the module of that version

What the copyright files of packages refer to is in licenses/common.
`

// packages are those of the distribution that files come from.
func (b *bundle) packages() ([]component, error) {
	names := make(map[string]bool)
	for source := range b.sources {
		owner, err := ownerOf(source)
		if err != nil {
			return nil, err
		}
		names[owner] = true
	}
	kernel, err := b.kernel()
	if err != nil {
		return nil, err
	}
	components := []component{kernel}
	for name := range names {
		out, err := exec.CommandContext(context.Background(), "dpkg-query", "-W", "-f", "${Version}", name).Output()
		if err != nil {
			return nil, fmt.Errorf("version of package %s: %w", name, err)
		}
		bare, _, _ := strings.Cut(name, ":")
		components = append(components, component{Name: bare, Version: string(out), Origin: "a package of the distribution"})
		b.add("licenses/"+bare, filepath.Join("/usr/share/doc", bare, "copyright"), 0o644)
	}
	return components, nil
}

// kernel is the package of the guest's kernel: the one whose release the image has, which was
// unpacked, or whose sources were built.
func (b *bundle) kernel() (component, error) {
	text, err := os.ReadFile(filepath.Join(b.build, "guest", "manifest.json"))
	if err != nil {
		return component{}, fmt.Errorf("package of the guest's kernel: %w", err)
	}
	var manifest struct {
		Release string `json:"kernelVersion"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return component{}, fmt.Errorf("package of the guest's kernel: %w", err)
	}
	source := filepath.Join(b.build, "kernel-source")
	if _, err := os.Stat(filepath.Join(source, "boot", "vmlinuz-"+manifest.Release)); err == nil {
		return b.builtKernel(source)
	}
	return b.unpackedKernel(filepath.Join(b.build, "linux-image-"+manifest.Release))
}

// builtKernel is one of hack/build-kernel.sh.
func (b *bundle) builtKernel(dir string) (component, error) {
	text, err := os.ReadFile(filepath.Join(dir, "package"))
	if err != nil {
		return component{}, fmt.Errorf("package of the guest's kernel: %w", err)
	}
	name, version, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	b.add("licenses/"+name, filepath.Join(dir, "copyright"), 0o644)
	return component{Name: name, Version: version, Origin: "built from the distribution's source with hack/guest-kernel.config and the patches hack/kernel-*.patch: share/ccv2/vmlinux"}, nil
}

// unpackedKernel is one of hack/deps.sh.
func (b *bundle) unpackedKernel(dir string) (component, error) {
	name := filepath.Base(dir)
	doc := filepath.Join(dir, "usr/share/doc", name)
	b.add("licenses/"+name, filepath.Join(doc, "copyright"), 0o644)
	f, err := os.Open(filepath.Join(doc, "changelog.gz"))
	if err != nil {
		return component{}, fmt.Errorf("version of %s: %w", name, err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return component{}, fmt.Errorf("version of %s: %w", name, err)
	}
	first, err := bufio.NewReader(z).ReadString('\n') // "source (version) release; …"
	_, version, _ := strings.Cut(first, "(")
	version, _, _ = strings.Cut(version, ")")
	return component{Name: name, Version: version, Origin: "a package of the distribution: share/ccv2/vmlinux, and modules in initrd.img"}, err
}

// ownerOf is the package that a file of the host comes from. With merged directories
// it may be known by the path without /usr.
func ownerOf(path string) (string, error) {
	var errs []error
	for _, p := range []string{path, strings.TrimPrefix(path, "/usr"), "/usr" + path} {
		out, err := exec.CommandContext(context.Background(), "dpkg-query", "-S", p).Output()
		if err == nil {
			owner, _, _ := strings.Cut(string(out), ": ")
			return owner, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("package of %s: %w", path, errors.Join(errs...))
}
