package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/qmp"
)

// A machine is saved and restored by QEMU's migration, in which memory that is a
// shared file is left out: it is copied as a file.

// maxSaved bounds the state of all devices; it has some 350 KiB.
const maxSaved = 16 << 20

// savedName is what the monitor calls the pipe that has the state.
const savedName = "saved"

// Save implements [hypervisor.Saver].
func (m *machine) Save(ctx context.Context) ([]byte, error) {
	if m.spec.Snapshot == nil {
		return nil, fmt.Errorf("save vm: its memory is in no file: %w", errdefs.ErrFailedPrecondition)
	}
	saved, err := save(ctx, m)
	if err != nil {
		return nil, m.classify("save vm", err)
	}
	return saved, nil
}

func save(ctx context.Context, m *machine) ([]byte, error) {
	if err := m.monitor.Execute(ctx, "stop", nil, nil); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	type result struct {
		saved []byte
		err   error
	}
	read := make(chan result, 1)
	go func() { // ends when r is closed
		saved, err := io.ReadAll(io.LimitReader(r, maxSaved))
		read <- result{saved, err}
	}()
	err = migrate(ctx, m, "migrate", w)
	_ = w.Close() // QEMU's own end is closed by now
	if err != nil {
		return nil, err
	}
	select {
	case got := <-read:
		if len(got.saved) == maxSaved {
			return nil, fmt.Errorf("the state of the devices has more than %d bytes: %w", maxSaved, errdefs.ErrResourceExhausted)
		}
		return got.saved, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// restore loads the state of the devices, which look at the memory.
func restore(ctx context.Context, m *machine, snap *hypervisor.Snapshot) error {
	if snap.Filled != nil {
		if err := snap.Filled(); err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	written := make(chan struct{})
	go func() { // ends when both read ends are closed, QEMU's by its end
		defer close(written)
		_, _ = w.Write(snap.Devices) // QEMU says it when something is missing
		_ = w.Close()
	}()
	err = migrate(ctx, m, "migrate-incoming", r)
	_ = r.Close()
	if err != nil && !errors.Is(err, qmp.ErrClosed) {
		_ = m.proc.Kill() // it may wait for more
	}
	<-written
	return err
}

// migrate runs one of the two commands with a pipe, and waits for the end.
func migrate(ctx context.Context, m *machine, command string, pipe *os.File) error {
	events := m.monitor.Subscribe(eventQueue, func(ev qmp.Event) bool { return ev.Name == "MIGRATION" })
	defer events.Close()
	on := func(capability string) object { return object{"capability": capability, "state": true} }
	for _, s := range []step{
		{command: "migrate-set-capabilities", args: object{"capabilities": []object{on("x-ignore-shared"), on("events")}}},
		{command: "getfd", args: object{"fdname": savedName}, file: pipe},
		{command: command, args: object{"uri": "fd:" + savedName}},
	} {
		if err := m.do(ctx, s); err != nil {
			return err
		}
	}
	for {
		select {
		case ev, ok := <-events.C:
			if !ok {
				return qmp.ErrClosed
			}
			if ended, err := migrated(ev); ended {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// migrated tells whether an event is about the end of a migration, and how that was.
func migrated(ev qmp.Event) (ended bool, err error) {
	var data struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(ev.Data, &data); err != nil {
		return true, fmt.Errorf("event %s: %w", ev.Name, err)
	}
	switch data.Status {
	case "completed":
		return true, nil
	case "failed", "cancelled":
		return true, errors.New("qemu says that it " + data.Status)
	}
	return false, nil
}
