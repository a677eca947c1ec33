package hyperstart

import (
	"bytes"
	"encoding/json"
)

// FileRequest is the payload of READFILE, which answers with the raw content,
// and the head of that of WRITEFILE.
type FileRequest struct {
	Container string `json:"container"` // "" means the guest itself; ccv2 only
	File      string `json:"file"`      // absolute path in the container
}

// ParseWriteFile splits the payload of WRITEFILE: the request in JSON, with the
// content right after it. content shares memory with payload.
//
// Guests that are older than ccv2 end the JSON at its first closing brace.
func ParseWriteFile(payload []byte) (r FileRequest, content []byte, err error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	if err := d.Decode(&r); err != nil {
		return r, nil, Errorf(ClassInvalidArgument, "decode payload: %w", err)
	}
	return r, payload[d.InputOffset():], nil
}
