package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
}

// document adds the bill of materials, in the format of SPDX 2.3, and the licences.
func (b *bundle) document() error {
	components, err := b.packages()
	if err != nil {
		return err
	}
	for _, name := range []string{"containerd-shim-ccv2", "ccv2", "ccv2-exec", "ccv2-agent"} {
		of, err := b.goModules(filepath.Join(b.build, "bin", name))
		if err != nil {
			return err
		}
		maps.Copy(components, of)
	}
	crun, err := os.ReadFile(filepath.Join(b.build, "crun-static", "version"))
	if err != nil {
		return fmt.Errorf("version of crun: %w", err)
	}
	components["crun"] = component{Name: "crun", Version: strings.TrimSpace(string(crun)), Origin: "in share/ccv2/initrd.img"}
	names := slices.Sorted(maps.Keys(components))
	all := make([]component, len(names))
	for i, name := range names {
		all[i] = components[name]
		all[i].SPDXID, all[i].Download = fmt.Sprintf("SPDXRef-%d", i), "NOASSERTION"
	}
	encoded, err := json.MarshalIndent(map[string]any{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": b.name(),
		"documentNamespace": "https://github.com/ccv2/containerd-shim-ccv2/" + b.name(),
		"creationInfo":      map[string]any{"created": b.time.Format(time.RFC3339), "creators": []string{"Tool: ccv2-dist"}}, "packages": all,
	}, "", "\t")
	b.files["sbom.spdx.json"] = file{data: append(encoded, '\n'), mode: 0o644}
	return err
}

// packages are those of the distribution that files come from; their licences are added.
func (b *bundle) packages() (map[string]component, error) {
	names := make(map[string]bool)
	for source := range b.sources {
		owner, err := ownerOf(source)
		if err != nil {
			return nil, err
		}
		names[owner] = true
	}
	// In the guest.
	kernels, err := filepath.Glob(filepath.Join(b.build, "linux-image-*"))
	if err != nil || len(kernels) == 0 {
		return nil, fmt.Errorf("package of the guest's kernel: %v, %w", kernels, err)
	}
	components := make(map[string]component)
	kernel := filepath.Base(kernels[len(kernels)-1])
	components[kernel] = component{Name: kernel, Version: strings.TrimPrefix(kernel, "linux-image-"), Origin: "share/ccv2/vmlinux, and modules in initrd.img"}
	b.add("licenses/"+kernel, filepath.Join(kernels[len(kernels)-1], "usr/share/doc", kernel, "copyright"), 0o644)
	for name := range names {
		out, err := exec.CommandContext(context.Background(), "dpkg-query", "-W", "-f", "${Version}", name).Output()
		if err != nil {
			return nil, fmt.Errorf("version of package %s: %w", name, err)
		}
		bare, _, _ := strings.Cut(name, ":")
		components[bare] = component{Name: bare, Version: string(out), Origin: "a package of the distribution"}
		b.add("licenses/"+bare, filepath.Join("/usr/share/doc", bare, "copyright"), 0o644)
	}
	return components, nil
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

// goModules are those that a program is built of.
func (b *bundle) goModules(program string) (map[string]component, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("modules of %s: %w", program, err)
	}
	components := map[string]component{"go": {Name: "go", Version: info.GoVersion, Origin: "toolchain and standard library"}}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		components[d.Path] = component{Name: d.Path, Version: d.Version, Origin: "Go module"}
	}
	return components, nil
}
