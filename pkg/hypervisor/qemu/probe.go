package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
)

// Probe implements [hypervisor.Driver]. It runs binary four times, about
// 50 ms each.
func (*Driver) Probe(ctx context.Context, binary string) (hypervisor.Capabilities, error) {
	var caps hypervisor.Capabilities
	if err := checkBinary(binary); err != nil {
		return caps, fmt.Errorf("probe qemu: %w", err)
	}
	var outputs [4]string
	for i, args := range [...][]string{{"-version"}, {"-machine", "help"}, {"-device", "help"}, {"-help"}} {
		out, err := exec.CommandContext(ctx, binary, args...).Output()
		if err != nil {
			return caps, fmt.Errorf("probe qemu: %s %s: %w", binary, strings.Join(args, " "), explainExit(err))
		}
		outputs[i] = string(out)
	}
	caps, err := parseProbe(outputs[0], outputs[1], outputs[2], outputs[3])
	if err != nil {
		return caps, fmt.Errorf("probe qemu: %s: %w", binary, err)
	}
	return caps, nil
}

// explainExit adds what the program said.
func explainExit(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}

var (
	versionLine = regexp.MustCompile(`(?m)^QEMU emulator version (\d+\.\d+\.\d+)`)
	machineLine = regexp.MustCompile(`(?m)^(\S+)\s+\S`)
	deviceName  = regexp.MustCompile(`(?m)^name "([^"]+)"`)
	sandboxLine = regexp.MustCompile(`(?m)^-sandbox `)
)

// parseProbe reads the four outputs of a QEMU.
func parseProbe(version, machines, devices, help string) (hypervisor.Capabilities, error) {
	var caps hypervisor.Capabilities
	v := versionLine.FindStringSubmatch(version)
	if v == nil {
		return caps, fmt.Errorf("not a QEMU system emulator, it calls itself %q: %w", firstLine(version), errdefs.ErrInvalidArgument)
	}
	caps.Version = v[1]
	_, list, _ := strings.Cut(machines, "\n") // after the heading
	for _, m := range machineLine.FindAllStringSubmatch(list, -1) {
		caps.Machines = append(caps.Machines, m[1])
	}
	for _, d := range deviceName.FindAllStringSubmatch(devices, -1) {
		switch d[1] {
		case "vhost-user-fs-pci":
			caps.VirtioFS = true
		case "virtio-9p-pci":
			caps.Virtio9P = true
		}
	}
	caps.Seccomp = sandboxLine.MatchString(help)
	return caps, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
