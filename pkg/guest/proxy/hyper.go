package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// hyper is the Hyper command: one command for the guest, or for the proxy
// itself (extension.go).
func (c *clientConn) hyper(ctx context.Context, f proxyproto.Frame) (any, error) {
	var r proxyproto.Hyper
	if err := f.Decode(&r); err != nil {
		return nil, err
	}
	if extension, ok := extensions[r.HyperName]; ok {
		return nil, extension(ctx, c, r)
	}
	if c.vm == nil {
		return nil, errors.New("client not attached to a vm")
	}
	ctx = activity.With(ctx, activity.Activity{ID: r.Activity, Verbose: r.Verbose})
	starts := r.HyperName == "newcontainer" || r.HyperName == "execcmd"
	if len(r.Tokens) > 0 && !starts {
		return nil, fmt.Errorf("%s doesn't need tokens but %d token(s) were given", r.HyperName, len(r.Tokens))
	}
	dialect := c.vm.conn.Dialect()
	code, ok := dialect.CodeOf(r.HyperName)
	switch {
	case !ok && hyperstart.KnownHyperName(r.HyperName):
		return nil, &proxyproto.RemoteError{
			Command: proxyproto.CmdHyper,
			Msg:     fmt.Sprintf("command '%s' is not in the guest's dialect %s", r.HyperName, dialect),
			Class:   string(hyperstart.ClassNotImplemented),
		}
	case !ok:
		return nil, fmt.Errorf("unknown command '%s'", r.HyperName)
	}
	var answer any
	var err error
	if starts {
		answer, err = c.startProcess(ctx, code, r)
	} else {
		var stop func()
		ctx, stop = c.watch(ctx)
		defer stop()
		answer, err = c.vm.conn.Command(ctx, code, r.Data)
	}
	if err != nil && c.vm.conn.Err() != nil {
		err = worded{err, "No multicast available for CTL channel"}
	}
	return answer, err
}

// startProcess is newcontainer and execcmd: it gives the process its sequence
// numbers, waits for a shim and only then asks the guest.
func (c *clientConn) startProcess(ctx context.Context, code hyperstart.Code, r proxyproto.Hyper) (any, error) {
	if len(r.Tokens) > 1 {
		return nil, fmt.Errorf("expected 0 or 1 token, got %d", len(r.Tokens))
	}
	var s *session
	var err error
	if len(r.Tokens) == 1 {
		s, err = c.vm.find(r.Tokens[0])
	} else {
		s, err = c.vm.newSession("", c.own)
	}
	if err != nil {
		return nil, err
	}
	if err := s.reserveStart(); err != nil {
		return nil, err
	}
	answer, err := c.startInGuest(ctx, s, code, r.Data)
	s.completeStart(err == nil)
	if err != nil && s.token == "" {
		c.vm.drop(s)
	}
	return answer, err
}

// startInGuest waits for the shim and asks the guest.
func (c *clientConn) startInGuest(ctx context.Context, s *session, code hyperstart.Code, data []byte) (any, error) {
	payload, err := s.assignStreams(code, data)
	if err != nil {
		return nil, err
	}
	watched, stop := c.watch(ctx)
	defer stop()
	if s.token != "" {
		if err := s.waitClaimed(watched); err != nil {
			return nil, err
		}
	}
	// When the client hangs up the shim still waits for its process, as long as
	// there is a shim.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(watched, func() {
		_ = s.waitFor(ctx, func() bool { return s.client == nil })
		cancel()
	})()
	return c.vm.conn.Command(ctx, code, payload)
}

// assignStreams fills in the sequence numbers of the process. Everything else in
// data passes as it is: dialects differ in the keys that they know.
func (s *session) assignStreams(code hyperstart.Code, data []byte) ([]byte, error) {
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(data, &outer); err != nil {
		return nil, fmt.Errorf("decode %s: %w", code, err)
	}
	if len(outer["process"]) == 0 || bytes.Equal(outer["process"], []byte("null")) {
		return nil, fmt.Errorf("%s has no process", code)
	}
	var inner map[string]json.RawMessage
	if err := json.Unmarshal(outer["process"], &inner); err != nil {
		return nil, fmt.Errorf("decode process of %s: %w", code, err)
	}
	var known struct {
		ID, Container string
		Process       hyperstart.Process
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("decode %s: %w", code, err)
	}
	if known.Process.Stdio != 0 {
		return nil, fmt.Errorf("expected process.Stdio to be 0, got %d", known.Process.Stdio)
	}
	if known.Process.Stderr != 0 {
		return nil, fmt.Errorf("expected process.Stderr to be 0, got %d", known.Process.Stderr)
	}
	// Without an id it could not be signalled, and hyperhq's guest does not survive the next command
	// about it. Clear Containers' in Go gives it this one by itself.
	if dialect := s.vm.conn.Dialect(); known.Process.ID == "" && (dialect == hyperstart.DialectHyperhq || dialect == hyperstart.DialectCCv2) {
		known.Process.ID = strconv.FormatUint(s.base, 10)
		inner["id"] = fmt.Appendf(nil, "%q", known.Process.ID)
	}
	inner["stdio"] = fmt.Appendf(nil, "%d", s.base)
	delete(inner, "stderr")
	if !known.Process.Terminal {
		inner["stderr"] = fmt.Appendf(nil, "%d", s.base+1)
	}
	var err error
	if outer["process"], err = proxyproto.Marshal(inner); err != nil {
		return nil, err
	}
	named := process{container: known.ID, id: known.Process.ID}
	if code == hyperstart.ExecCmd {
		named = process{container: known.Container, id: known.Process.ID, exec: true}
	}
	s.mu.Lock()
	s.process = named
	s.mu.Unlock()
	return proxyproto.Marshal(outer)
}

// signalCommand translates a signal for the guest.
func (s *session) signalCommand(sig proxyproto.Signal) (hyperstart.Code, []byte, error) {
	dialect := s.vm.conn.Dialect()
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	var code hyperstart.Code
	var request any
	signals, canSignal := dialect.CodeOf("signalprocess")
	switch {
	case syscall.Signal(sig.SignalNumber) == syscall.SIGWINCH && dialect.WinSizeBySeq():
		code = hyperstart.WinSize
		request = hyperstart.WinSizeBySeq{Seq: s.base, Row: uint16(sig.Rows), Column: uint16(sig.Columns)}
	case syscall.Signal(sig.SignalNumber) == syscall.SIGWINCH:
		code = hyperstart.WinSize
		request = hyperstart.WinSizeByName{Container: p.container, Process: p.id, Row: uint16(sig.Rows), Column: uint16(sig.Columns)}
	case p.exec && !canSignal:
		return 0, nil, &proxyproto.RemoteError{
			Command: proxyproto.CmdSignal,
			Msg: fmt.Sprintf("Could not send the signal %s: Sending a signal to a process different from the initial container process is not supported",
				syscall.Signal(sig.SignalNumber)),
			Class: string(hyperstart.ClassNotImplemented),
		}
	case p.exec:
		code = signals
		request = hyperstart.SignalProcessRequest{Container: p.container, Process: p.id, Signal: sig.SignalNumber}
	default:
		code = hyperstart.KillContainer
		request = hyperstart.KillContainerRequest{Container: p.container, Signal: sig.SignalNumber}
	}
	payload, err := proxyproto.Marshal(request)
	return code, payload, err
}
