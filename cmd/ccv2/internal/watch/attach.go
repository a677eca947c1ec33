package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/console"
	"github.com/containerd/ttrpc"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// detachKey is Ctrl-], as telnet and virsh have it.
const detachKey = 0x1d

// attach gives this terminal to the console of a sandbox until it is detached.
func (t *tool) attach(ctx context.Context, r sandboxes.Record) error {
	term, err := console.ConsoleFromFile(os.Stdin)
	if err != nil {
		return sandboxes.UsageError("--attach: the standard input is no terminal")
	}
	if _, _, err := sandboxes.AskInfo(ctx, r, false, t.Limit); err != nil { // one that hangs is found soon
		return err
	}
	c, err := sandboxes.Connect(ctx, r)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Attach(c.Stream(ctx))
	if err == nil {
		err = stream.Send(&debugapi.ConsoleInput{Start: &debugapi.AttachStart{By: operator.Caller(), Activity: sandboxes.Activity()}})
	}
	if err != nil {
		return err
	}
	first, err := stream.Recv() // it may be refused
	if err != nil {
		return err
	}
	fmt.Fprintf(t.Stderr, "attached to the console of sandbox %s; Ctrl-] detaches\n", operator.Line(r.Name()))
	if err := term.SetRaw(); err != nil {
		return fmt.Errorf("make the terminal raw: %w", err)
	}
	defer func() { _ = term.Reset() }()
	detached := make(chan struct{})
	go func() { // ends with the input, or with this process
		defer close(detached)
		typeOn(os.Stdin, stream.Send)
	}()
	go func() {
		select {
		case <-detached:
			cancel()
		case <-ctx.Done():
		}
	}()
	err = t.showConsole(first, stream.Recv)
	if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, ttrpc.ErrClosed) {
		fmt.Fprint(t.Stderr, "\ndetached\n")
		return nil
	}
	return err
}

// typeOn sends what is typed until the key that detaches, or its end.
func typeOn(from io.Reader, send func(*debugapi.ConsoleInput) error) {
	const most = 1 << 10
	b := make([]byte, most)
	for {
		n, err := from.Read(b)
		typed, _, detach := bytes.Cut(b[:n], []byte{detachKey})
		if len(typed) > 0 && send(&debugapi.ConsoleInput{Typed: typed}) != nil || detach || err != nil {
			return
		}
	}
}

// showConsole prints what the guest writes. The shim has made it harmless, and so does this, for a shim is of any release.
func (t *tool) showConsole(m *debugapi.ConsoleOutput, next func() (*debugapi.ConsoleOutput, error)) (err error) {
	out := screen{out: t.Stdout}
	for err == nil {
		if m.GetLost() > 0 {
			fmt.Fprintf(t.Stderr, "\n… %d pieces came too fast\n", m.GetLost())
		}
		if err = out.show(m.GetText()); err == nil {
			m, err = next()
		}
	}
	return err
}

// screen is this terminal, which goes to the begin of a line by itself when it begins one.
type screen struct {
	out io.Writer
	cr  bool // a carriage return waits for what is behind it
}

// show shows what is printable, and what moves within a line or to the next one.
func (s *screen) show(text string) error {
	var b strings.Builder
	for _, r := range text {
		if s.cr && r != '\n' {
			b.WriteByte('\r')
		}
		s.cr = r == '\r'
		if !s.cr && (r >= ' ' && r <= '~' || strings.ContainsRune("\n\t\b", r)) {
			b.WriteRune(r)
		}
	}
	_, err := io.WriteString(s.out, b.String())
	return err
}
