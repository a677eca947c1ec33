package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxLine bounds one line from QEMU, in bytes. The longest known reply,
// query-qmp-schema, has about 200 KiB.
const MaxLine = 1 << 20

// Version is what QEMU says of itself in its greeting.
type Version struct {
	Major, Minor, Micro int
	Package             string // the distribution's name for it, may be ""
}

// String is the version as three numbers, e.g. "7.2.22".
func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
}

type request struct {
	Execute   string `json:"execute"`
	Arguments any    `json:"arguments,omitempty"`
	ID        uint64 `json:"id"`
}

// message is the union of all that QEMU sends: a greeting, a reply or an event.
type message struct {
	Greeting *greeting       `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *wireError      `json:"error"`
	ID       *uint64         `json:"id"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	Stamp    *timestamp      `json:"timestamp"`
}

type greeting struct {
	Version struct {
		QEMU struct {
			Major int `json:"major"`
			Minor int `json:"minor"`
			Micro int `json:"micro"`
		} `json:"qemu"`
		Package string `json:"package"`
	} `json:"version"`
}

type wireError struct {
	Class Class  `json:"class"`
	Desc  string `json:"desc"`
}

// timestamp has -1 in both fields when QEMU could not read its clock.
type timestamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

func (t *timestamp) time() time.Time {
	if t == nil || t.Seconds < 0 {
		return time.Time{}
	}
	return time.Unix(t.Seconds, t.Microseconds*int64(time.Microsecond))
}

// lineReader yields messages.
type lineReader struct{ scan *bufio.Scanner }

func newLineReader(r io.Reader) *lineReader {
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 0, 4096), MaxLine)
	return &lineReader{scan: scan}
}

// next returns the next message, or io.EOF at the end of the stream. Nothing
// in the message refers to the reader's buffer: json copies raw values.
func (l *lineReader) next() (*message, error) {
	for l.scan.Scan() {
		line := bytes.TrimSpace(l.scan.Bytes())
		if len(line) == 0 {
			continue
		}
		m := new(message)
		if err := json.Unmarshal(line, m); err != nil {
			return nil, fmt.Errorf("decode %q: %w", abbreviate(line), err)
		}
		return m, nil
	}
	switch err := l.scan.Err(); {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line exceeds %d bytes", MaxLine)
	default:
		return nil, err
	}
}

// abbreviate keeps error messages short whatever the peer sent.
func abbreviate(line []byte) []byte {
	const most = 80
	if len(line) > most {
		return line[:most]
	}
	return line
}
