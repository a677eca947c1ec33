package proxyproto

import (
	"crypto/rand"
	"encoding/base64"
)

const (
	tokenBytes = 32
	// TokenLen is the length of a token in characters.
	TokenLen = (tokenBytes + 2) / 3 * 4
)

// NewToken returns a new random token: 32 bytes in base64 with the URL
// alphabet and padding, the form that the original shim insists on. Whoever
// has it can take over the streams of its process, so it must not be logged.
func NewToken() string {
	var b [tokenBytes]byte
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(b[:])
	return base64.URLEncoding.EncodeToString(b[:])
}

// ValidToken reports whether s has the form of a token. It says nothing about
// whether a proxy knows it.
func ValidToken(s string) bool {
	if len(s) != TokenLen {
		return false
	}
	var b [tokenBytes + 1]byte // the decoder counts the padding as a byte
	n, err := base64.URLEncoding.Strict().Decode(b[:], []byte(s))
	return err == nil && n == tokenBytes
}
