package hyperstart_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestActivity: what is appended is found, and the payload is the same JSON but for it.
func TestActivity(t *testing.T) {
	for _, payload := range []string{`{}`, `{"a":1}`, " {\n }", `{ "a" : {"b":"}"}}`} {
		for _, verbose := range []bool{false, true} {
			got := hyperstart.AppendActivity([]byte("before"), []byte(payload), "0a9f", verbose)[len("before"):]
			if id, v := hyperstart.ActivityOf(got); id != "0a9f" || v != verbose {
				t.Errorf("%q: %q has %q, %v", payload, got, id, v)
			}
			var want, have map[string]any
			if err := json.Unmarshal(got, &have); err != nil {
				t.Errorf("%q: %q: %v", payload, got, err)
			}
			_ = json.Unmarshal([]byte(payload), &want)
			delete(have, "activity")
			delete(have, "verbose")
			a, _ := json.Marshal(want)
			b, _ := json.Marshal(have)
			if string(a) != string(b) {
				t.Errorf("%q became %q", payload, got)
			}
		}
	}
	for _, tt := range [][2]string{{"", "0a"}, {"text", "0a"}, {"[1]", "0a"}, {`{"a":1}`, `"}`}, {`{"a":1}`, ""}, {`{"a":1}`, strings.Repeat("a", 65)}, {"{", "0a"}} {
		if got := hyperstart.AppendActivity(nil, []byte(tt[0]), tt[1], true); string(got) != tt[0] {
			t.Errorf("%q with %q became %q", tt[0], tt[1], got)
		}
	}
	for _, payload := range []string{"", "{}", `{"activity":"`, `{"activity":"xyz"}`, `{"activity":"` + strings.Repeat("a", 100) + `"}`} {
		if id, _ := hyperstart.ActivityOf([]byte(payload)); id != "" {
			t.Errorf("%q has %q", payload, id)
		}
	}
}
