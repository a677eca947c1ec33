package proxyproto

import (
	"crypto/rand"
	"encoding/base64"
)

// tokenBytes is how many random bytes a token has.
const tokenBytes = 32

// NewToken returns a new random token: 32 bytes in base64 with the URL
// alphabet and padding, the form that the original shim insists on. Whoever
// has it can take over the streams of its process, so it must not be logged.
func NewToken() string {
	var b [tokenBytes]byte
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(b[:])
	return base64.URLEncoding.EncodeToString(b[:])
}
