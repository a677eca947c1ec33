package cgroups

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// FitCPUs drops the cpuset of a linux section that is not all of the guest's
// processors: its numbers are then those of the host's, which bind the threads of the
// VM there. One that the guest has is the container's, as on a host of that size.
func FitCPUs(linux map[string]json.RawMessage) error {
	online, err := onlineCPUs()
	if err != nil {
		return err
	}
	return fitCPUs(online, "", linux)
}

// UpdateCPUs is FitCPUs for a container that may have a cpuset of the guest's: that does
// not stay, and the container gets all that the guest has.
func UpdateCPUs(linux map[string]json.RawMessage) error {
	online, err := onlineCPUs()
	if err != nil {
		return err
	}
	return fitCPUs(online, online, linux)
}

// onlineCPUs are the guest's processors as the kernel lists them, such as "0-3,6".
func onlineCPUs() (string, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return "", fmt.Errorf("find the guest's processors: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// fitCPUs replaces a cpuset that is not all of online; "" drops it.
func fitCPUs(online, instead string, linux map[string]json.RawMessage) error {
	if len(linux["resources"]) == 0 {
		return nil
	}
	resources, err := hyperstart.Decode[map[string]json.RawMessage](linux["resources"])
	if err != nil || len(resources["cpu"]) == 0 {
		return err
	}
	cpu, err := hyperstart.Decode[map[string]json.RawMessage](resources["cpu"])
	if err != nil || len(cpu["cpus"]) == 0 {
		return err
	}
	list, err := hyperstart.Decode[string](cpu["cpus"])
	if err != nil {
		return err
	}
	wanted, err := cpuList(list)
	if err != nil {
		return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "cpuset %q: %w", list, err)
	}
	have, err := cpuList(online)
	if err != nil {
		return fmt.Errorf("the guest's processors %q: %w", online, err)
	}
	for n := range wanted {
		if have[n] {
			continue
		}
		delete(cpu, "cpus")
		if instead != "" {
			cpu["cpus"] = json.RawMessage(strconv.Quote(instead))
		}
		break
	}
	if resources["cpu"], err = json.Marshal(cpu); err != nil {
		return err
	}
	linux["resources"], err = json.Marshal(resources)
	return err
}

// maxCPUs is more than any guest has, and bounds a range that means nothing.
const maxCPUs = 1 << 16

// cpuList reads a list such as "0-3,6".
func cpuList(list string) (map[int]bool, error) {
	all := make(map[int]bool)
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first < 0 || last < first || last >= maxCPUs {
			return nil, fmt.Errorf("%q is no processor and no range of them", part)
		}
		for n := first; n <= last; n++ {
			all[n] = true
		}
	}
	return all, nil
}
