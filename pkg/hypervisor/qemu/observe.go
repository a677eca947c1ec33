package qemu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/history"
)

// observer is the [hypervisor.Observable] of a machine.
type observer struct{ m *machine }

// Console implements [hypervisor.Observable].
func (o observer) Console() *history.Log[hypervisor.ConsoleLine] { return o.m.console.Lines() }

// Watch implements [hypervisor.Terminal].
func (o observer) Watch() (pieces *history.Log[string], from uint64, begin string, stop func()) {
	return o.m.console.Watch()
}

// typeLimit is how long QEMU may take input for a guest that does not read.
const typeLimit = time.Second

// Type implements [hypervisor.Terminal].
func (o observer) Type(input []byte) error {
	err := o.m.tty.SetWriteDeadline(time.Now().Add(typeLimit))
	if err == nil {
		_, err = o.m.tty.Write(input)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("type on the console: the guest does not read what was typed before: %w", errdefs.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("type on the console: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nil
}

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

// blockStats is an entry of the answer to query-blockstats.
type blockStats struct {
	QDev  string `json:"qdev"` // path of the device
	Node  string `json:"node-name"`
	Stats struct {
		ReadBytes    uint64 `json:"rd_bytes"`
		Reads        uint64 `json:"rd_operations"`
		ReadTime     int64  `json:"rd_total_time_ns"`
		WrittenBytes uint64 `json:"wr_bytes"`
		Writes       uint64 `json:"wr_operations"`
		WriteTime    int64  `json:"wr_total_time_ns"`
		Flushes      uint64 `json:"flush_operations"`
		FailedReads  uint64 `json:"failed_rd_operations"`
		FailedWrites uint64 `json:"failed_wr_operations"`
		FailedFlush  uint64 `json:"failed_flush_operations"`
	} `json:"stats"`
}

// id is that of the device, whose path is /machine/peripheral/ID/virtio-backend.
func (s blockStats) id() string {
	const devices = "/machine/peripheral/"
	if rest, ok := strings.CutPrefix(s.QDev, devices); ok {
		id, _, _ := strings.Cut(rest, "/")
		return id
	}
	return cmp.Or(s.QDev, s.Node)
}

// Disks implements [hypervisor.Observable].
func (o observer) Disks(ctx context.Context) ([]hypervisor.DiskStats, error) {
	var all []blockStats
	if err := o.m.monitor.Execute(ctx, "query-blockstats", nil, &all); err != nil {
		return nil, o.m.classify("counters of disks", err)
	}
	disks := make([]hypervisor.DiskStats, 0, len(all))
	for _, s := range all {
		disks = append(disks, hypervisor.DiskStats{
			ID: s.id(), ReadBytes: s.Stats.ReadBytes, Reads: s.Stats.Reads, WrittenBytes: s.Stats.WrittenBytes, Writes: s.Stats.Writes, Flushes: s.Stats.Flushes,
			ReadTime: time.Duration(s.Stats.ReadTime), WriteTime: time.Duration(s.Stats.WriteTime),
			Failed: s.Stats.FailedReads + s.Stats.FailedWrites + s.Stats.FailedFlush,
		})
	}
	return disks, nil
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
