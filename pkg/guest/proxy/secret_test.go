package proxy

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// TestTokensAreSecret: an error that the shim gets, which may log it, has no token; an original client gets the
// original's text.
func TestTokensAreSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServer(t, hyperstart.DialectCCv2, Options{})
		runtime := runtimePeer(t, s)
		lone, idle, busy := runtime.token(), runtime.token(), runtime.token()
		shimPeer(t, s, idle)
		shimPeer(t, s, busy)
		runtime.must(proxyproto.CmdHyper, hyper("newcontainer", busy, newProcess))
		strange := proxyproto.NewToken()
		for _, tt := range []struct {
			command        proxyproto.Command
			payload        any
			token          string
			want, original string
		}{
			{proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: busy}, busy, "token already claimed", "token already claimed: "},
			{proxyproto.CmdConnectShim, proxyproto.ConnectShim{Token: strange}, strange, "unknown token", "unknown token: "},
			{proxyproto.CmdHyper, hyper("newcontainer", strange, newProcess), strange, "unknown token", "unknown token "},
			{proxyproto.CmdHyper, hyper("newcontainer", busy, newProcess), busy, "the token has a process already", "token "},
			{proxyproto.CmdHyper, hyper("newcontainer", lone, newProcess), lone, "timeout waiting for a shim to claim the token", "timeout waiting for shim with token "},
			{proxyproto.CmdSignal, proxyproto.Signal{SignalNumber: 10}, idle, "timeout waiting for the process to start", "timeout waiting for process with token "},
		} {
			for own, want := range map[bool]string{true: tt.want, false: tt.original + tt.token} {
				c := &clientConn{server: s, vm: pod(t, s)}
				if tt.command == proxyproto.CmdSignal {
					c.session = pod(t, s).byToken[tt.token]
				}
				payload, err := proxyproto.Marshal(tt.payload)
				if err != nil {
					t.Fatal(err)
				}
				frame := proxyproto.Frame{Header: proxyproto.Header{Type: proxyproto.TypeCommand, Opcode: uint8(tt.command)}, Payload: payload}
				if tt.command == proxyproto.CmdConnectShim {
					err = c.connectShim(frame)
				} else {
					_, err = c.run(t.Context(), frame)
				}
				failure := originalFailure
				if own {
					failure = ownFailure
				}
				if err == nil {
					t.Errorf("%s: no error, want %q", tt.command, want)
					continue
				}
				got := failure(tt.command, err).Error()
				if own && (got != want || strings.Contains(err.Error(), tt.token)) || !own && !strings.Contains(got, want) {
					t.Errorf("%s: %q, want %q", tt.command, got, want)
				}
			}
		}
	})
}
