package hyperstart

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// FileRequest is the payload of READFILE, which answers with the raw content,
// and the head of that of WRITEFILE.
type FileRequest struct {
	Container string `json:"container"`
	File      string `json:"file"` // absolute path in the container
}

// errNoFileHead says that a WRITEFILE payload does not start with an object.
var errNoFileHead = errors.New("hyperstart: WRITEFILE payload has no JSON object")

// AppendWriteFile appends the payload of WRITEFILE to dst: the request in
// JSON, with the content right behind it. Agents end the JSON at the first
// closing brace, so names that contain one are refused.
func AppendWriteFile(dst []byte, r FileRequest, content []byte) ([]byte, error) {
	if strings.Contains(r.Container, "}") || strings.Contains(r.File, "}") {
		return dst, fmt.Errorf("hyperstart: WRITEFILE cannot name %q, it contains a closing brace", r.File)
	}
	var head bytes.Buffer
	enc := json.NewEncoder(&head)
	enc.SetEscapeHTML(false) // the C agents do not know \u escapes
	if err := enc.Encode(r); err != nil {
		return dst, fmt.Errorf("hyperstart: encode WRITEFILE: %w", err)
	}
	dst = append(dst, bytes.TrimSuffix(head.Bytes(), []byte("\n"))...)
	return append(dst, content...), nil
}

// ParseWriteFile splits the payload of WRITEFILE. content shares memory with it.
func ParseWriteFile(payload []byte) (r FileRequest, content []byte, err error) {
	end := bytes.IndexByte(payload, '}') + 1
	if end == 0 {
		return r, nil, errNoFileHead
	}
	if err := json.Unmarshal(payload[:end], &r); err != nil {
		return r, nil, fmt.Errorf("hyperstart: decode WRITEFILE: %w", err)
	}
	return r, payload[end:], nil
}
