//go:build e2e

package harness

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestChart is an XML document with each part, to scale.
func TestChart(t *testing.T) {
	svg := chart("a < b", []Bar{{"one & all", []Part{{"first", 100}, {"second", 50}}}, {"two", []Part{{"first", 540}}}}, Mark{"boot", 270})
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in:\n%s", err, svg)
		}
	}
	for _, want := range []string{
		"one &amp; all", "a &lt; b", `<rect x="150.0" y="40" width="100.0" height="34" fill="#4477aa"><title>first: 100 ms`,
		`<rect x="250.0" y="40" width="50.0" height="34" fill="#66ccee"><title>second: 50 ms`, `width="540.0"`, "M420.0 32", "150 ms",
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in:\n%s", want, svg)
		}
	}
}
