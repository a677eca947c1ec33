//go:build e2e

package harness

import (
	"os"
	"testing"
	"time"
)

// slow says that the host is itself emulated, with the KVM that guests run on.
var slow = os.Getenv("CCV2_SLOW") != ""

// Patience bounds every wait for something that a host with time to spare does
// at once. It is long because tests share their processors with QEMU.
var Patience = patient(60 * time.Second)

// patient returns a limit for the host that there is.
func patient(limit time.Duration) time.Duration {
	if slow {
		return 5 * limit
	}
	return limit
}

// interval is how often [Until] looks.
const interval = 20 * time.Millisecond

// Until waits until done reports true, and fails the test after Patience.
func Until(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	if !within(Patience, done) {
		tb.Fatalf("no %s within %s", what, Patience)
	}
}

// within reports whether done came true before the limit.
func within(limit time.Duration, done func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			return done()
		}
	}
	return true
}
