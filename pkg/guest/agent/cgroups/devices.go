package cgroups

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Number is the number of a device.
type Number struct{ Major, Minor int64 }

// FitDevices gives the devices of a linux section, and the rules about them, this guest's
// numbers. disks has those of block devices, by the host's. Rules about other block
// devices are dropped: their numbers may be those of another container's disk here.
//
// A character device that is given by its number has to be the same in the guest. A node
// for another one could be made, but would open nothing, or something else. A
// privileged container, which may use all there are, has nodes of all that the host has
// and cannot mean each.
func FitDevices(linux map[string]json.RawMessage, disks map[Number]Number, has func(major, minor int64) bool) error {
	if len(linux["resources"]) == 0 {
		return nil
	}
	resources, err := hyperstart.Decode[map[string]json.RawMessage](linux["resources"])
	if err != nil {
		return err
	}
	if len(resources["devices"]) == 0 {
		return nil
	}
	rules, err := hyperstart.Decode[[]specs.LinuxDeviceCgroup](resources["devices"])
	if err != nil {
		return err
	}
	if len(linux["devices"]) > 0 {
		devices, err := hyperstart.Decode[[]specs.LinuxDevice](linux["devices"])
		if err != nil {
			return err
		}
		if err := fitNodes(devices, rules, disks, has); err != nil {
			return err
		}
		if linux["devices"], err = json.Marshal(devices); err != nil {
			return err
		}
	}
	if resources["devices"], err = json.Marshal(fitRules(rules, disks)); err != nil {
		return err
	}
	linux["resources"], err = json.Marshal(resources)
	return err
}

// fitNodes gives nodes of disks the guest's numbers, those of other block devices of the host
// a number that no driver has, and checks the others.
func fitNodes(devices []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, disks map[Number]Number, has func(major, minor int64) bool) error {
	for i, d := range devices {
		switch number, ok := disks[Number{d.Major, d.Minor}]; {
		case d.Type == "b" && ok:
			devices[i].Major, devices[i].Minor = number.Major, number.Minor
		case d.Type == "b": // the guest may have a disk of that number, another container's
			devices[i].Major, devices[i].Minor = 0, 0
		case d.Type == "p":
		case named(d, rules) && !has(d.Major, d.Minor):
			return hyperstart.Errorf(hyperstart.ClassNotImplemented,
				"device %s (%s %d:%d) is the host's, and the guest has none that is the same: a container in a VM cannot be given it yet; leave it out, or use another runtime", d.Path, d.Type, d.Major, d.Minor)
		}
	}
	return nil
}

// fitRules makes rules about block devices those about the guest's disks.
func fitRules(rules []specs.LinuxDeviceCgroup, disks map[Number]Number) []specs.LinuxDeviceCgroup {
	fitted := []specs.LinuxDeviceCgroup{}
	for _, r := range rules {
		if r.Type != "b" || r.Major == nil || *r.Major < 0 {
			fitted = append(fitted, r)
			continue
		}
		for host, guest := range disks {
			if *r.Major == host.Major && (r.Minor == nil || *r.Minor < 0 || *r.Minor == host.Minor) {
				rule := r
				rule.Major, rule.Minor = &guest.Major, &guest.Minor
				fitted = append(fitted, rule)
			}
		}
	}
	return fitted
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
