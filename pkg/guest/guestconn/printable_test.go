package guestconn_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guestconn"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

// rude is a text that a terminal would obey.
const rude = "no\x1b[2J such\r\nbinary\x07 \u202e"

// wantLine wants a text of the guest to be one printable line that is bounded.
func wantLine(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not printable: %q", text)
	}
	if limit := printable.MaxText + 100; len(text) > limit { // with what the host says about it
		t.Errorf("%d bytes, want at most %d", len(text), limit)
	}
}

// TestRefusalIsPrintable: the reason that a guest gives for its refusal.
func TestRefusalIsPrintable(t *testing.T) {
	c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
	for message, want := range map[string]string{
		rude:                             "no?[2J such | binary? ?",
		strings.Repeat("\nx", 10000)[1:]: "",
	} {
		done := play(func() {
			payload, err := json.Marshal(hyperstart.ErrorReply{Message: message})
			if err != nil {
				t.Error(err)
			}
			ticket, _ := g.expectCall(hyperstart.Ping)
			g.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, hyperstart.Error, payload))
		})
		_, err := c.Command(t.Context(), hyperstart.Ping, nil)
		<-done
		refused, ok := errors.AsType[*hyperstart.CommandError](err)
		if !ok || want != "" && refused.Message != want {
			t.Fatalf("got %v, want %q", err, want)
		}
		wantLine(t, err)
	}
}

// TestMalformedEventIsPrintable: what cannot be decoded is quoted.
func TestMalformedEventIsPrintable(t *testing.T) {
	c, g := open(t, hyperstart.DialectCCv2, guestconn.Options{})
	g.say(hyperstart.Event, []byte(`{"kind":"exited","status":`+strings.Repeat("7", 100000)+`}`))
	<-c.Done()
	wantLine(t, c.Err())
}
