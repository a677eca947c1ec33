package proxyv1

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// hyper is one command for the guest.
func (c *client) hyper(req v1.Request) error {
	var r v1.Hyper
	if err := req.Decode(&r); err != nil {
		return err
	}
	if c.vm == "" {
		return errNotAttached
	}
	h := proxyproto.Hyper{HyperName: r.HyperName, Data: r.Data}
	switch r.HyperName {
	case "newcontainer", "execcmd":
		s, data, err := c.takeStreams(r)
		if err != nil {
			return err
		}
		h.Data = data
		if s != nil {
			h.Tokens = []string{s.token}
		}
	case "winsize":
		var size hyperstart.WinSizeBySeq
		if err := json.Unmarshal(r.Data, &size); err != nil {
			return fmt.Errorf("decode winsize: %w", err)
		}
		s, err := c.proxy.find(c.vm, size.Seq)
		if err != nil {
			return err
		}
		return s.resize(int(size.Row), int(size.Column))
	case "startpod":
		if err := checkPod(r.Data); err != nil {
			return err
		}
	}
	_, err := c.frames.ask(proxyproto.CmdHyper, h)
	return err
}

// takeStreams takes the sequence numbers out of a command that starts a process. The stream is nil for
// a process whose output nobody wants.
func (c *client) takeStreams(r v1.Hyper) (*stream, json.RawMessage, error) {
	var outer, process map[string]json.RawMessage
	if err := json.Unmarshal(r.Data, &outer); err != nil {
		return nil, nil, fmt.Errorf("decode %s: %w", r.HyperName, err)
	}
	if err := json.Unmarshal(outer["process"], &process); err != nil || process == nil {
		return nil, nil, fmt.Errorf("%s has no process", r.HyperName)
	}
	var numbers struct{ Stdio, Stderr uint64 }
	if err := json.Unmarshal(outer["process"], &numbers); err != nil {
		return nil, nil, fmt.Errorf("decode process of %s: %w", r.HyperName, err)
	}
	delete(process, "stdio")
	delete(process, "stderr")
	// Clients of version 1 name no process, which some guests do not survive.
	dialect, err := c.server.Dialect(c.vm)
	if err != nil {
		return nil, nil, err
	}
	if process["id"] == nil && dialect.HasProcessID() && numbers.Stdio != 0 {
		process["id"] = fmt.Appendf(nil, "\"%d\"", numbers.Stdio)
	}
	if outer["process"], err = proxyproto.Marshal(process); err != nil {
		return nil, nil, err
	}
	data, err := proxyproto.Marshal(outer)
	if err != nil {
		return nil, nil, err
	}
	if numbers.Stdio == 0 && numbers.Stderr == 0 {
		return nil, data, nil
	}
	s, err := c.proxy.find(c.vm, numbers.Stdio)
	if err != nil {
		return nil, nil, err
	}
	if numbers.Stderr != 0 && (s.sides != 2 || numbers.Stderr != s.base+1) {
		return nil, nil, fmt.Errorf("stderr has sequence number %d, which was not allocated with %d", numbers.Stderr, s.base)
	}
	return s, data, nil
}

// checkPod refuses a pod with containers: the sequence numbers in them would be the guest's.
func checkPod(data json.RawMessage) error {
	var pod struct{ Containers []json.RawMessage }
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, &pod); err != nil {
		return fmt.Errorf("decode startpod: %w", err)
	}
	if len(pod.Containers) > 0 {
		return errors.New("startpod with containers is not served: start the pod without, and create them with newcontainer")
	}
	return nil
}
