package podvm

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestGuestLog: what a guest logs is printable, has its activity, and is no more than a bound; what is dropped is counted.
func TestGuestLog(t *testing.T) {
	var out bytes.Buffer
	defer func(to io.Writer, level string) {
		log.L.Logger.SetOutput(to)
		_ = log.SetLevel(level)
	}(log.L.Logger.Out, log.GetLevel().String())
	log.L.Logger.SetOutput(&out)
	if err := log.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	g := newGuestLog(context.Background(), "s")
	g.add(hyperstart.LogMessage{Activity: "0a", Command: "EXECCMD", Took: time.Second})
	g.add(hyperstart.LogMessage{Activity: "0b", Command: "EXECCMD", Error: "no\x1b[2J program"})
	g.add(hyperstart.LogMessage{Text: "trouble\nand more"})
	lines := strings.Split(out.String(), "\n")
	for i, want := range []string{`level=debug msg="guest command" activity=0a command=EXECCMD`, `error="no?[2J program"`, `msg="guest agent"`} {
		if !strings.Contains(lines[i], want) || !strings.Contains(lines[i], "sandbox=s source=guest") {
			t.Errorf("%s, want %s", lines[i], want)
		}
	}
	if strings.Contains(out.String(), "\x1b") || len(lines) != 4 {
		t.Errorf("got %q", out.String())
	}
	for range 10_000 {
		g.add(hyperstart.LogMessage{Text: "flood"})
	}
	if n := strings.Count(out.String(), "\n"); n != logBurst {
		t.Errorf("%d lines", n)
	}
	g.since = g.since.Add(-logWindow)
	g.add(hyperstart.LogMessage{Text: "later"})
	if text := out.String(); !strings.Contains(text, "dropped=9903") || !strings.Contains(text, "later") {
		t.Errorf("after a while: %s", text[len(text)-300:])
	}
}

// TestGuestLogBytes: long messages are bounded in bytes, and what the level hides takes nothing of that.
func TestGuestLogBytes(t *testing.T) {
	var out bytes.Buffer
	defer func(to io.Writer) { log.L.Logger.SetOutput(to) }(log.L.Logger.Out)
	log.L.Logger.SetOutput(&out)
	g := newGuestLog(context.Background(), "s")
	for range 10_000 {
		g.add(hyperstart.LogMessage{Activity: "0a", Command: "EXECCMD"}) // at the level debug
	}
	for range logBurst {
		g.add(hyperstart.LogMessage{Text: strings.Repeat("x", 4<<10)})
	}
	if n := strings.Count(out.String(), "\n"); n == 0 || n == logBurst || out.Len() > logBytes+n*200 {
		t.Errorf("%d lines, %d bytes", n, out.Len())
	}
}
