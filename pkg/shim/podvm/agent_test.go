package podvm

import (
	"encoding/binary"
	"encoding/json"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/layout"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
)

// agent is the guest of a fake VM: it acknowledges what the host says.
type agent struct {
	t testing.TB
	// noted, when set, is told of every command.
	noted func(code hyperstart.Code)
	// answer, when set, answers a command; a code of 0 leaves that to the agent.
	answer func(code hyperstart.Code) (hyperstart.Code, []byte)
	// ignore has commands that are never answered.
	ignore map[hyperstart.Code]bool
	// restored is whether the guest has said READY before.
	restored atomic.Bool
	// behind is by how much its clock is, in nanoseconds.
	behind atomic.Int64

	wg       sync.WaitGroup
	mu       sync.Mutex // guards the order of messages, and poweroff
	ctl      net.Conn
	poweroff func()
}

// run is the guest of a VM.
func (a *agent) run(vm *fake.VM, ports map[string]net.Conn) {
	a.mu.Lock()
	a.poweroff = vm.Die
	a.mu.Unlock()
	a.serve(ports[layout.CtlPort], ports[layout.TTYPort])
}

// serve speaks on both ports until they are closed.
func (a *agent) serve(ctl, tty net.Conn) {
	a.ctl = ctl
	a.wg.Go(func() {
		r := hyperstart.NewTTYReader(tty)
		for {
			if _, _, err := r.Read(); err != nil {
				return
			}
		}
	})
	if !a.restored.Load() {
		a.say(hyperstart.Ready, nil)
	}
	r := hyperstart.NewCtlReader(ctl)
	for {
		code, payload, err := r.Read()
		if err != nil {
			return
		}
		reply := a.say
		if code == hyperstart.Call {
			ticket, inner, wrapped, err := hyperstart.ParseCall(payload)
			if err != nil {
				a.t.Error(err)
				return
			}
			a.say(hyperstart.Ack, nil)
			code, payload = inner, wrapped
			reply = func(status hyperstart.Code, answer []byte) {
				a.say(hyperstart.Result, hyperstart.AppendCall(nil, ticket, status, answer))
			}
		}
		a.handle(code, payload, reply)
	}
}

func (a *agent) say(code hyperstart.Code, payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = a.ctl.Write(hyperstart.AppendCtl(nil, code, payload)) // the host may have gone
}

func (a *agent) handle(code hyperstart.Code, request []byte, reply func(hyperstart.Code, []byte)) {
	if a.noted != nil {
		a.noted(code)
	}
	if a.ignore[code] {
		return
	}
	if a.answer != nil {
		if status, payload := a.answer(code); status != 0 {
			reply(status, payload)
			return
		}
	}
	var payload []byte
	if code == hyperstart.GetVersion {
		payload = binary.BigEndian.AppendUint32(nil, hyperstart.VersionCCv2)
	}
	if code == hyperstart.AdjustClock {
		payload = a.adjustClock(request)
	}
	reply(hyperstart.Ack, payload)
	if code == hyperstart.DestroyPod {
		a.poweroff()
	}
}

// adjustClock is the answer to ADJUSTCLOCK.
func (a *agent) adjustClock(request []byte) []byte {
	adjust, err := hyperstart.Decode[hyperstart.AdjustClockRequest](request)
	if err != nil {
		a.t.Error(err)
	}
	behind := a.behind.Add(-adjust.Step - adjust.Slew)
	answer, err := json.Marshal(hyperstart.AdjustClockReply{Now: time.Now().UnixNano() - behind})
	if err != nil {
		a.t.Error(err)
	}
	return answer
}
