package proxyv1

import (
	"errors"
	"strings"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
)

// TestNothingIsLeft: streams that cannot be had keep no number, and cost a token only when all else is
// there.
func TestNothingIsLeft(t *testing.T) {
	server := proxy.NewServer(proxy.Options{})
	defer func() { _ = server.Close() }()
	p := New()
	for want, token := range map[string]func() (string, error){
		"unknown token: T": func() (string, error) { return "T", nil },
		"no token":         func() (string, error) { return "", errors.New("no token") },
	} {
		for n := range 3 {
			if s, file, err := p.open(server, "pod", 2, token); err == nil || err.Error() != want || s != nil || file != nil {
				t.Errorf("%d: %v, %v, %v; want %q", n, s, file, err, want)
			}
		}
	}
	if left := len(p.vms["pod"].streams); left > 0 {
		t.Errorf("%d streams are left", left)
	}
	for n := range maxStreams {
		p.vms["pod"].streams[uint64(n)] = nil
	}
	_, _, err := p.open(server, "pod", 2, func() (string, error) {
		t.Error("a token was taken for a stream that there is no room for")
		return "", nil
	})
	if err == nil || !strings.Contains(err.Error(), "has 1024 streams already") {
		t.Errorf("one stream too many: %v", err)
	}
	p.Close()
}
