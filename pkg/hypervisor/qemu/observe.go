package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
)

// observer is the [hypervisor.Observable] of a machine.
type observer struct{ m *machine }

// Console implements [hypervisor.Observable].
func (o observer) Console() *history.Log[hypervisor.ConsoleLine] { return o.m.console.lines }

// Devices implements [hypervisor.Observable].
func (o observer) Devices() []string { return o.m.slots.ids() }

// Version implements [hypervisor.Observable].
func (o observer) Version() string {
	v := o.m.monitor.Version()
	return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) + "." + strconv.Itoa(v.Micro)
}

// Status implements [hypervisor.Observable].
func (o observer) Status(ctx context.Context) (string, error) {
	var status struct {
		Status string `json:"status"`
	}
	err := o.m.monitor.Execute(ctx, "query-status", nil, &status)
	return status.Status, o.m.classify("status of vm", err)
}

// queries are the commands of the monitor that only ask, and answer at once.
var queries = []string{
	"query-version", "query-status", "query-kvm", "query-cpus-fast", "query-memory-size-summary", "query-memory-devices",
	"query-iothreads", "query-chardev", "query-block", "query-blockstats", "query-pci", "query-rx-filter", "query-migrate",
}

// Inspect implements [hypervisor.Observable]. What this QEMU refuses is in the text as well.
func (o observer) Inspect(ctx context.Context) ([]byte, error) {
	var text bytes.Buffer
	for _, query := range queries {
		var answer json.RawMessage
		err := o.m.monitor.Execute(ctx, query, nil, &answer)
		if refused, ok := errors.AsType[*qmp.Error](err); ok {
			fmt.Fprintf(&text, "%s: %s\n", query, refused)
			continue
		}
		if err != nil {
			return text.Bytes(), o.m.classify("inspect vm", err)
		}
		fmt.Fprintf(&text, "%s: ", query)
		if err := json.Indent(&text, answer, "", "  "); err != nil {
			return text.Bytes(), fmt.Errorf("inspect vm: %s: %w", query, err)
		}
		text.WriteByte('\n')
	}
	return text.Bytes(), nil
}
