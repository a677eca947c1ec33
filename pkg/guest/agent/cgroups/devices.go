package cgroups

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// CheckDevices refuses a linux section that gives its container a device by its number
// which is not the same in this guest. A node for it could be made, but would open
// nothing, or something else. A privileged container, which may use all there are, has
// nodes of all that the host has and cannot mean each.
func CheckDevices(linux map[string]json.RawMessage, has func(major, minor int64) bool) error {
	if len(linux["devices"]) == 0 || len(linux["resources"]) == 0 {
		return nil
	}
	devices, err := hyperstart.Decode[[]specs.LinuxDevice](linux["devices"])
	if err != nil {
		return err
	}
	resources, err := hyperstart.Decode[struct {
		Devices []specs.LinuxDeviceCgroup `json:"devices"`
	}](linux["resources"])
	if err != nil {
		return err
	}
	for _, d := range devices {
		if d.Type == "p" || !named(d, resources.Devices) || d.Type != "b" && has(d.Major, d.Minor) {
			continue
		}
		return hyperstart.Errorf(hyperstart.ClassNotImplemented,
			"device %s (%s %d:%d) is the host's, and the guest has none that is the same: a container in a VM cannot be given it yet; leave it out, or use another runtime", d.Path, d.Type, d.Major, d.Minor)
	}
	return nil
}

// named reports whether a rule that names the device, or all of its driver, lets it be
// read or written.
func named(d specs.LinuxDevice, rules []specs.LinuxDeviceCgroup) bool {
	for _, r := range rules {
		sameType := r.Type == d.Type || d.Type == "u" && r.Type == "c"
		sameNumber := r.Major != nil && *r.Major == d.Major && (r.Minor == nil || *r.Minor == d.Minor)
		if r.Allow && sameType && sameNumber && (r.Access == "" || strings.ContainsAny(r.Access, "rw")) {
			return true
		}
	}
	return false
}
