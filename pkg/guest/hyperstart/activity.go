package hyperstart

import (
	"bytes"
	"time"
)

// LogMessage is what the agent logs about a command that has an activity, or about itself.
type LogMessage struct {
	Activity string        `json:"activity,omitempty"`
	Command  string        `json:"command,omitempty"` // name of the command; "" when it is not about one
	Took     time.Duration `json:"took,omitempty"`
	// Error is why the command has failed; "" when it has not.
	Error string `json:"error,omitempty"`
	// Text is what it is about when it is not about a command.
	Text string `json:"text,omitempty"`
}

// What a payload begins with that has an activity. It is no key of any command, and agents ignore
// keys that they do not know.
const (
	activityBegin   = `{"activity":"`
	activityVerbose = `,"verbose":true`
	maxActivity     = 64
)

// AppendActivity appends a payload to dst that has an activity. One that is no JSON object is appended as it is.
func AppendActivity(dst, payload []byte, id string, verbose bool) []byte {
	body := bytes.TrimLeft(payload, " \n\t\r")
	if !isActivity(id) || len(body) < 2 || body[0] != '{' {
		return append(dst, payload...)
	}
	dst = append(append(append(dst, activityBegin...), id...), '"')
	if verbose {
		dst = append(dst, activityVerbose...)
	}
	if rest := bytes.TrimLeft(body[1:], " \n\t\r"); rest[0] != '}' {
		dst = append(dst, ',')
	}
	return append(dst, body[1:]...)
}

// ActivityOf is the activity that AppendActivity has put into a payload; "" when there is none.
func ActivityOf(payload []byte) (id string, verbose bool) {
	rest, ok := bytes.CutPrefix(payload, []byte(activityBegin))
	if !ok {
		return "", false
	}
	value, rest, ok := bytes.Cut(rest[:min(len(rest), maxActivity+1+len(activityVerbose))], []byte(`"`))
	if id = string(value); !ok || !isActivity(id) {
		return "", false
	}
	return id, bytes.HasPrefix(rest, []byte(activityVerbose))
}

// isActivity reports whether an id is one that can be put anywhere.
func isActivity(id string) bool {
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return id != "" && len(id) <= maxActivity
}
