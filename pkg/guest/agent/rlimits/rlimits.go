package rlimits

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// unlimited is RLIM_INFINITY.
const unlimited = ^uint64(0)

// defaultLimits are those that a specification need not have. On a host a container
// inherits them from containerd, whose unit systemd has given large ones; here the
// kernel has derived the last two from the little memory of the guest, and the
// first from 1991. The numbers of processes and signals that a container may have
// are bounded by its control group: the one counts the processes, the other the
// memory of the signals.
var defaultLimits = []specs.POSIXRlimit{
	{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 524288}, // systemd's default, and so containerd's
	{Type: "RLIMIT_NPROC", Soft: unlimited, Hard: unlimited},
	{Type: "RLIMIT_SIGPENDING", Soft: unlimited, Hard: unlimited},
}

// With returns the limits of a process: its own, and the others' defaults.
func With(own []specs.POSIXRlimit) []specs.POSIXRlimit {
	all := slices.Clone(own)
	for _, limit := range defaultLimits {
		if !slices.ContainsFunc(own, func(l specs.POSIXRlimit) bool { return l.Type == limit.Type }) {
			all = append(all, limit)
		}
	}
	return all
}

// Add does that in a process whose other keys pass unchanged.
func Add(raw json.RawMessage) (json.RawMessage, error) {
	process := map[string]json.RawMessage{}
	var own []specs.POSIXRlimit
	err := json.Unmarshal(raw, &process)
	if limits, ok := process["rlimits"]; ok && err == nil {
		err = json.Unmarshal(limits, &own)
	}
	if err != nil {
		return nil, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "decode limits of process: %w", err)
	}
	if process["rlimits"], err = json.Marshal(With(own)); err != nil {
		return nil, err
	}
	return json.Marshal(process)
}

// Raise raises those of the calling process, the agent: all users of a user namespace together may
// not have more than the process that has made the namespace.
func Raise() error {
	for _, resource := range []int{unix.RLIMIT_NPROC, unix.RLIMIT_SIGPENDING} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: unlimited, Max: unlimited}); err != nil {
			return fmt.Errorf("raise limit %d: %w", resource, err)
		}
	}
	return nil
}
