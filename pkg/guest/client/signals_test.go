package client_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestEverySignal reaches the guest with its number: SIGWINCH is no change of a
// window's size.
func TestEverySignal(t *testing.T) {
	for _, dialect := range []hyperstart.Dialect{hyperstart.DialectCCv2, hyperstart.DialectClearC} {
		t.Run(dialect.String(), func(t *testing.T) {
			f := newFixture(t, dialect, nil, client.Options{}).start()
			s := f.container()
			if err := f.StartContainer(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
			from := len(f.sent(0))
			var want []string
			for signal := 1; signal <= 64; signal++ {
				if err := f.Signal(t.Context(), s, client.Target{Container: "c"}, signal); err != nil {
					t.Errorf("signal %d: %v", signal, err)
				}
				want = append(want, fmt.Sprintf(`KILLCONTAINER {"container":"c","signal":%d,"allProcesses":false}`, signal))
			}
			if diff := cmp.Diff(want, f.sent(from)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
	f := newFixture(t, hyperstart.DialectCCv2, nil, client.Options{}).start()
	s := f.session()
	if err := f.Exec(t.Context(), s, execOf("e")); err != nil {
		t.Fatal(err)
	}
	from := len(f.sent(0))
	var want []string
	for signal := 1; signal <= 64; signal++ {
		if err := f.Signal(t.Context(), s, client.Target{Container: "c", ExecID: "e"}, signal); err != nil {
			t.Errorf("signal %d to an exec process: %v", signal, err)
		}
		want = append(want, fmt.Sprintf(`SIGNALPROCESS {"container":"c","process":"exec-e","signal":%d}`, signal))
	}
	if diff := cmp.Diff(want, f.sent(from)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}
