package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// Names of the commands that the proxy carries out itself. They are additions
// of ccv2; an original proxy answers "unknown command".
const (
	// HyperCredit, on the connection of a session, says how much output the
	// client has consumed: data [Consumed]. From the first one on the guest
	// gets credit for what was consumed and no longer for what was written to
	// the connection, so a client that always reads never holds up anything,
	// and never has to hold more than a window per stream.
	HyperCredit = "ccv2.credit"
	// HyperDrainStdin, on any connection, with the token of a session and data
	// [DrainStdin], is answered when no more than Below bytes of stdin wait
	// for the guest. A client that waits for it before it sends more keeps the
	// session's connection free for signals.
	HyperDrainStdin = "ccv2.drainstdin"
)

// Consumed is the data of HyperCredit, in bytes.
type Consumed struct {
	Stdout int `json:"stdout,omitempty"`
	Stderr int `json:"stderr,omitempty"`
}

// DrainStdin is the data of HyperDrainStdin, in bytes.
type DrainStdin struct {
	Below int `json:"below"`
}

var localCommands = map[string]func(context.Context, *clientConn, proxyproto.Hyper) error{
	HyperCredit:     runCredit,
	HyperDrainStdin: runDrainStdin,
}

func runCredit(_ context.Context, c *clientConn, r proxyproto.Hyper) error {
	if c.session == nil {
		return errors.New("client isn't a shim")
	}
	var consumed Consumed
	if err := json.Unmarshal(r.Data, &consumed); err != nil {
		return fmt.Errorf("decode %s: %w", r.HyperName, err)
	}
	s := c.session
	s.mu.Lock()
	s.windowed = true
	s.mu.Unlock()
	for i, n := range []int{consumed.Stdout, consumed.Stderr} {
		if n > 0 {
			s.consumed(i, n)
		}
	}
	return nil
}

func runDrainStdin(ctx context.Context, c *clientConn, r proxyproto.Hyper) error {
	if c.vm == nil {
		return errors.New("client not attached to a vm")
	}
	if len(r.Tokens) != 1 {
		return fmt.Errorf("expected 1 token, got %d", len(r.Tokens))
	}
	var drain DrainStdin
	if err := json.Unmarshal(r.Data, &drain); err != nil {
		return fmt.Errorf("decode %s: %w", r.HyperName, err)
	}
	s, err := c.vm.find(r.Tokens[0])
	if err != nil {
		return err
	}
	return s.drainStdin(ctx, drain.Below)
}
