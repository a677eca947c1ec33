package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/template"
)

// unmakable is a driver whose VMs do not start.
type unmakable struct{ probed }

func (unmakable) Fingerprint(hypervisor.Spec) (string, error) { return "facts\n", nil }

func (unmakable) Start(context.Context, hypervisor.Spec) (hypervisor.VM, error) {
	return nil, errors.New("no vm today")
}

var _ template.Driver = unmakable{}

// TestCheckTemplates says why there is no template, and what to do.
func TestCheckTemplates(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(t *testing.T, c *checker)
		want  string
	}{
		{"none yet", func(*testing.T, *checker) {}, "warn  templates      none for pods of the usual size in DIR/templates: the next one boots"},
		{"off", func(t *testing.T, c *checker) { appendTo(t, c.path, "template.enabled = false\n") }, "ok    templates      off ([template] enabled = false): each pod boots"},
		{"9p", func(t *testing.T, c *checker) { appendTo(t, c.path, `share.type = "9p"`+"\n") }, "ok    templates      none, each pod boots: a share of type 9p is there from the boot on"},
		{"failed", func(t *testing.T, c *checker) {
			t.Helper()
			f := c.checkConfig()
			if f.verdict != verdictOK {
				t.Fatal(f)
			}
			c.accel = hypervisor.AccelKVM
			s, _ := c.templates()
			if _, err := s.Store.Make(t.Context(), s.VM); err == nil || !strings.Contains(err.Error(), "no vm today") {
				t.Fatalf("make: %v", err)
			}
		}, "warn  templates      the one for pods of the usual size could not be made, they boot: no vm today"},
		{"writable for others", func(t *testing.T, c *checker) {
			t.Helper()
			dir := strings.TrimSuffix(c.path, "config.toml") + "templates"
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
				t.Fatal(err)
			}
		}, "warn  templates      none can be used, each pod boots: templates in DIR/templates, which belongs to user 0 and has the mode 0777"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, out, dir := testHost(t)
			if p, ok := c.driver.(probed); ok {
				c.driver = unmakable{p}
			}
			appendTo(t, c.path, `template.dir = "`+dir+"/templates\"\n")
			tt.setUp(t, c)
			c.hostChecks(t.Context())
			if got := line(out.String(), "templates", dir); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %q\nwant %q\n%s", got, tt.want, out)
			}
			if _, rest, _ := strings.Cut(out.String(), " templates "); strings.HasPrefix(tt.want, "warn") && !strings.Contains(rest, "fix: ") {
				t.Errorf("no fix in:\n%s", out)
			}
		})
	}
}
