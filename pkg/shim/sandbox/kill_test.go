package sandbox

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestKillThatIsNotCarriedOut: a guest that answers SIGKILL, in whatever way,
// and lets the process run on loses its VM.
func TestKillThatIsNotCarriedOut(t *testing.T) {
	for _, answer := range []hyperstart.Code{hyperstart.Ack, hyperstart.Error} {
		f := newFixture(t, hyperstart.DialectCCv2)
		f.vm.Config.CallTimeout = 300 * time.Millisecond
		f.Sandbox = f.sandbox()
		f.agent.hook = func(code hyperstart.Code) (hyperstart.Code, []byte) {
			if code == hyperstart.KillContainer {
				return answer, []byte(`{"class":"not_found","message":"no such process"}`)
			}
			return 0, nil
		}
		c := f.run("c", "wait")
		for range 3 {
			if err := c.Kill(t.Context(), "", 9, true); (err == nil) != (answer == hyperstart.Ack) {
				t.Errorf("kill: %v", err)
			}
		}
		if status := f.wait(c, ""); status == 0 {
			t.Error("ended with 0")
		}
		<-f.end.released
	}
}

// TestDrainEndsWithOutputThatDoesNot: the exit is reported, however much a guest
// sends after it.
func TestDrainEndsWithOutputThatDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProcessIO()
		p.copying = true
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(drainStall / 2):
					p.moved.Add(1 << 20)
				}
			}
		}()
		begin := time.Now()
		p.drain()
		close(stop)
		if took := time.Since(begin); took < 4*drainStall || took > 20*drainStall {
			t.Errorf("gave up after %s", took)
		}
	})
}
