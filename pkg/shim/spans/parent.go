package spans

import (
	"regexp"
	"strconv"
	"strings"
)

// Parent is the span of a client, as its request names it.
type Parent struct {
	Trace   string // 32 hexadecimal digits
	Sampled bool
	span    string
	state   string
}

// traceparent is the header of W3C Trace Context: version, trace, span, flags. Later versions may have more behind.
var traceparent = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$`)

// maxState bounds what a client sends along for others: vendors are to pass on 512 characters.
const maxState = 512

// ParseParent reads the headers traceparent and tracestate.
func ParseParent(header, state string) (p Parent, ok bool) {
	parts := traceparent.FindStringSubmatch(header)
	if parts == nil || parts[1] == "ff" || parts[1] == "00" && parts[5] != "" || strings.Trim(parts[2], "0") == "" || strings.Trim(parts[3], "0") == "" {
		return Parent{}, false
	}
	flags, err := strconv.ParseUint(parts[4], 16, 8)
	if err != nil { // the digits are there
		return Parent{}, false
	}
	if len(state) > maxState || strings.ContainsFunc(state, func(r rune) bool { return r < ' ' || r > '~' }) {
		state = ""
	}
	return Parent{Trace: parts[2], Sampled: flags&flagSampled != 0, span: parts[3], state: state}, true
}
