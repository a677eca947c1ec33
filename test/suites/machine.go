package main

import (
	"context"
	_ "embed" // machine.sh
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

//go:embed machine.sh
var machine []byte

// enter runs one suite with one runtime in new namespaces and returns its results.
func enter(ctx context.Context, o options, suite, runtime string) (results, error) {
	scratch, err := os.MkdirTemp("", "suites-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(scratch, 0o755); err != nil { // other users' containers look into it
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	script := filepath.Join(scratch, "machine.sh")
	if err := os.WriteFile(script, machine, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "sh", script, scratch, self, "-scratch", scratch,
		"-build", o.build, "-suite", suite, "-runtime", runtime, "-run", o.run)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(scratch))
	}
	if err := os.RemoveAll(scratch); err != nil {
		return nil, err
	}
	return load(resultsPath(o.build, suite, runtime))
}

// network is what upstream's scripts install for their tests, with the bridge's
// plugin and name.
const network = `{"cniVersion": "1.0.0", "name": "suites-%[1]s", "plugins": [
  {"type": %[1]q, "bridge": %[2]q, "capabilities": {"io.kubernetes.cri.pod-annotations": true}, "isGateway": true, "ipMasq": true, "promiscMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "2001:4860:4860::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// ccv2Config is the shim's configuration: the guest that was built.
const ccv2Config = `[guest]
kernel = %q
image = %q
[vm]
vcpus = %d
[template]
dir = %q
background = false
`

// configure writes the shim's configuration, with a number of processors for each VM.
func configure(ctx context.Context, o options, vcpus int) error {
	const path = "/etc/ccv2/config.toml"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf(ccv2Config, filepath.Join(o.build, "guest/vmlinux"), filepath.Join(o.build, "guest/initrd.img"), vcpus, filepath.Join(o.build, "templates"))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	// As `ccv2 install` does.
	out, err := exec.CommandContext(ctx, filepath.Join(o.build, "bin", "ccv2"), "template", "build").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ccv2 template build: %w: %s", err, out)
	}
	return nil
}

// furnish gives the private machine its configuration and a registry.
func furnish(ctx context.Context, o options) (stop func() error, err error) {
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return nil, err
	}
	for path, text := range map[string]string{
		"/etc/cni/net.d/10-suites.conflist": fmt.Sprintf(network, "bridge", "cni0"),
		failpointNetwork + "/10.conflist":   fmt.Sprintf(network, "cni-bridge-fp", "cni-fp"),
		"/etc/hosts":                        string(hosts) + "\n127.0.0.1 " + strings.Join(registries, " ") + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if err := configure(ctx, o, 1); err != nil {
		return nil, err
	}
	if o.suite == clientSuite.name || o.suite == criSuite.name {
		if err := furnishFailpoints(o); err != nil {
			return nil, err
		}
	}
	path := []string{filepath.Join(o.build, "bin"), failpoints(o.build), os.Getenv("PATH")}
	for name, value := range map[string]string{
		"PATH": strings.Join(path, string(os.PathListSeparator)), "TMPDIR": filepath.Join(o.scratch, "tmp"),
		"HTTPS_PROXY": "", "HTTP_PROXY": "", "https_proxy": "", "http_proxy": "", "SSL_CERT_FILE": certPath(o.scratch),
	} {
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	return startRegistry(ctx, o)
}

// furnishFailpoints installs what containerd's own suites want to fail.
func furnishFailpoints(o options) error {
	if err := os.Symlink(filepath.Join(failpoints(o.build), "cni-bridge-fp"), "/opt/cni/bin/cni-bridge-fp"); err != nil {
		return err
	}
	loopback, err := os.ReadFile(filepath.Join(failpoints(o.build), "loopback-v2"))
	if err != nil {
		return err
	}
	return os.WriteFile("/usr/local/bin/loopback-v2", loopback, 0o755)
}
