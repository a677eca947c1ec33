package layout

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleList(t *testing.T) {
	var list []byte
	for _, line := range []struct {
		phase Phase
		path  string
	}{{PhaseBoot, "/lib/a.ko"}, {PhaseMMIO, "/lib/b.ko"}, {PhaseBoot, "/lib/c.ko"}, {PhaseLate, "/lib/with space.ko"}} {
		list = AppendModule(list, line.phase, line.path)
	}
	const want = "boot /lib/a.ko\nmmio /lib/b.ko\nboot /lib/c.ko\nlate /lib/with space.ko\n"
	if string(list) != want {
		t.Errorf("got %q, want %q", list, want)
	}
	for phase, want := range map[Phase][]string{
		PhaseBoot: {"/lib/a.ko", "/lib/c.ko"}, PhaseMMIO: {"/lib/b.ko"}, PhaseLate: {"/lib/with space.ko"}, "other": nil,
	} {
		if diff := cmp.Diff(want, ModulesOf(string(list)+"\nnonsense\n", phase)); diff != "" {
			t.Errorf("%s: %s", phase, diff)
		}
	}
	if got := ModulesOf("", PhaseBoot); got != nil {
		t.Errorf("no list: got %q", got)
	}
}
