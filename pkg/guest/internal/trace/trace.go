package trace

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Channels to and from a guest; others are connections of clients, "c1" being
// the first one that was accepted.
const (
	Ctl = "ctl"
	TTY = "tty"
)

// Line is one message. From which side it comes depends on the recording: In
// is set for "<", which the guest or the proxy sent.
type Line struct {
	In      bool
	Channel string
	At      float64 // seconds
	Raw     []byte
}

// Read returns the lines of all recordings together, in the order of time.
func Read(paths ...string) ([]Line, error) {
	var all []Line
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for s := range strings.Lines(string(text)) {
			if strings.HasPrefix(s, "#") || strings.TrimSpace(s) == "" {
				continue
			}
			line, err := parse(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %q: %w", path, s, err)
			}
			all = append(all, line)
		}
	}
	slices.SortStableFunc(all, func(a, b Line) int { return cmp.Compare(a.At, b.At) })
	return all, nil
}

func parse(s string) (Line, error) {
	fields := strings.Fields(s)
	if len(fields) != 4 {
		return Line{}, fmt.Errorf("%d fields, not 4", len(fields))
	}
	at, err := strconv.ParseFloat(fields[2], 64)
	if err != nil {
		return Line{}, err
	}
	raw, err := hex.DecodeString(fields[3])
	return Line{In: fields[0] == "<", Channel: fields[1], At: at, Raw: raw}, err
}

// ParseCtl decodes a message of the control port.
func (l Line) ParseCtl() (hyperstart.Code, []byte, error) {
	return hyperstart.NewCtlReader(bytes.NewReader(l.Raw)).Read()
}

// ParseTTY decodes a message of the tty port.
func (l Line) ParseTTY() (seq uint64, payload []byte, err error) {
	return hyperstart.NewTTYReader(bytes.NewReader(l.Raw)).Read()
}
