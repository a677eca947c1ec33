package trace_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/trace"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/wiretap"
)

var messages = []wiretap.Message{
	{Time: 1700000000123456789, Layer: wiretap.Ctl, Size: 12, Raw: hyperstart.AppendCtl(nil, hyperstart.Ping, []byte("\x1b[2J"))},
	{Time: 1700000000123456790, Layer: wiretap.TTY, ToHost: true, Size: 1 << 20, Raw: hyperstart.AppendTTY(nil, 7, []byte("hello"))},
	{Time: 1700000000123456791, Layer: wiretap.Frame, Conn: 9, ToHost: true, Size: 3, Raw: []byte{1, 2, 3}},
}

func write(t *testing.T) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := trace.NewWriter(&file)
	for _, m := range messages {
		if err == nil {
			err = w.Write(m)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// TestFile reads what was written, in the format that others know.
func TestFile(t *testing.T) {
	file := write(t)
	if want := "\x4d\x3c\xb2\xa1\x02\x00\x04\x00"; string(file[:8]) != want {
		t.Errorf("it begins with %q", file[:8])
	}
	r, err := trace.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var got []wiretap.Message
	for {
		m, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	if diff := cmp.Diff(messages, got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
}

// TestBadFile: whatever a file has in it, reading ends.
func TestBadFile(t *testing.T) {
	file := write(t)
	for n := range file {
		for _, data := range [][]byte{file[:n], append(bytes.Clone(file[:n]), bytes.Repeat([]byte{0xff}, 64)...)} {
			r, err := trace.NewReader(bytes.NewReader(data))
			for err == nil {
				var m wiretap.Message
				m, err = r.Read()
				trace.Line(m)
			}
		}
	}
	if _, err := trace.NewReader(strings.NewReader("something else that is long enough")); err == nil || !strings.Contains(err.Error(), "no file of ccv2 trace") {
		t.Errorf("another file: %v", err)
	}
}

// TestLine is fit for a terminal.
func TestLine(t *testing.T) {
	lines := make([]string, 0, len(messages))
	for _, m := range messages {
		lines = append(lines, strings.Join(strings.Fields(trace.Line(m))[1:], " "))
	}
	want := []string{"ctl → guest PING 12 ?[2J", "tty ← guest data stream 7 1048576 hello", "frame ← proxy unreadable connection 9 3 unexpected EOF"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i, f := range []trace.Filter{{Layers: []string{"ctl"}}, {Text: "stream 7"}, {Layers: []string{"tty", "frame"}, Text: "unreadable"}} {
		for j, m := range messages {
			if f.Wants(m, trace.Line(m)) != (i == j) {
				t.Errorf("filter %+v and %s", f, lines[j])
			}
		}
	}
}
