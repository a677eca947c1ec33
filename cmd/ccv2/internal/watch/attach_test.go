package watch

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// TestTypeOn: what is typed is sent up to the key that detaches.
func TestTypeOn(t *testing.T) {
	for in, want := range map[string]string{"": "", "ab\r": "ab\r", "ab\x1dcd": "ab", "\x1d": "", strings.Repeat("x", 3000): strings.Repeat("x", 3000)} {
		var sent bytes.Buffer
		typeOn(strings.NewReader(in), func(m *debugapi.ConsoleInput) error {
			if len(m.GetTyped()) == 0 || len(m.GetTyped()) > 1<<10 {
				t.Errorf("%d bytes at once", len(m.GetTyped()))
			}
			sent.Write(m.GetTyped())
			return nil
		})
		if sent.String() != want {
			t.Errorf("%.20q: sent %.20q", in, sent.String())
		}
	}
	typeOn(strings.NewReader("a"), func(*debugapi.ConsoleInput) error { return io.ErrClosedPipe })
}

// TestShowConsole: whatever a shim passes on, no control character reaches the terminal but those that move in what was written.
func TestShowConsole(t *testing.T) {
	var out, errs bytes.Buffer
	list := []*debugapi.ConsoleOutput{{Text: "begin"}, {Text: "a\x1b[2J\x07\u009b\tb\b \b\r\n", Lost: 3}, {Text: "50%\r"}, {Text: "60%\r"}, {Text: "\n"}}
	err := (&tool{&operator.Operator{Options: operator.Options{Stdout: &out, Stderr: &errs}}}).showConsole(list[0], func() (*debugapi.ConsoleOutput, error) {
		if list = list[1:]; len(list) == 0 {
			return nil, io.EOF
		}
		return list[0], nil
	})
	if diff := cmp.Diff("begina[2J\tb\b \b\n50%\r60%\n", out.String()); diff != "" || !errors.Is(err, io.EOF) || !strings.Contains(errs.String(), "3 pieces") {
		t.Errorf("%v, %s (-want +got):\n%s", err, errs.String(), diff)
	}
}
