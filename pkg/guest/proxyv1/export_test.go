package proxyv1

import "time"

// NewWithGrace is New with another time for input that nobody reads.
func NewWithGrace(grace time.Duration) *Proxy {
	p := New()
	p.grace = grace
	return p
}
