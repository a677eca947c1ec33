package commands

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// maxCalls is how many CALLs run at once. Each may hold an OCI runtime process
// and a spec of up to MaxCtlPayload, so it also bounds the agent's memory.
const maxCalls = 64

// Mux reads commands and answers them.
type Mux struct {
	handlers map[hyperstart.Code]Handler
	out      *Writer
	// final is called after the reply to a successful DESTROYPOD was written.
	final func()
	// Original, which may be nil, is called before a STARTPOD that comes without a CALL: its
	// host knows none.
	Original func()

	calls chan struct{} // one token per running CALL
	wg    sync.WaitGroup

	forward sync.Once // of the agent's lines to the host
}

// New returns a mux that answers on out. final is called after the reply to a DESTROYPOD that
// has succeeded was written.
func New(out *Writer, handlers map[hyperstart.Code]Handler, final func()) *Mux {
	return &Mux{handlers: handlers, out: out, final: final, calls: make(chan struct{}, maxCalls)}
}

// Serve answers commands until the stream ends, then ends running CALLs.
func (m *Mux) Serve(ctx context.Context, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer m.wg.Wait()
	defer cancel()
	reader := hyperstart.NewCtlReader(bufio.NewReaderSize(r, keepBuffer))
	encode := hyperstart.EncodeError
	for {
		code, payload, err := reader.Read()
		if err != nil {
			return fmt.Errorf("read control message: %w", err)
		}
		if code == hyperstart.Call {
			m.call(ctx, payload)
			continue
		}
		if m.Original != nil && (code == hyperstart.StartPod || code == hyperstart.NewContainer) {
			encode = func(err error) []byte { return []byte(err.Error()) } // all that such a host reads
		}
		if m.Original != nil && code == hyperstart.StartPod {
			m.Original()
		}
		answer, err := m.run(ctx, code, payload)
		if err != nil {
			m.out.Send(hyperstart.Error, encode(err))
			continue
		}
		m.out.Send(hyperstart.Ack, answer)
		m.finish(code)
	}
}

// call acknowledges a CALL and runs the wrapped command beside the others.
func (m *Mux) call(ctx context.Context, payload []byte) {
	ticket, code, inner, err := hyperstart.ParseCall(payload)
	if err != nil {
		m.out.Send(hyperstart.Error, hyperstart.EncodeError(hyperstart.Errorf(hyperstart.ClassInvalidArgument, "%w", err)))
		return
	}
	m.out.Send(hyperstart.Ack, nil)
	select {
	case m.calls <- struct{}{}:
	default:
		m.result(ticket, nil, hyperstart.Errorf(hyperstart.ClassResourceExhausted, "%d commands are running already", maxCalls))
		return
	}
	inner = bytes.Clone(inner) // the reader's buffer is reused
	m.wg.Go(func() {
		defer console.Guard()
		defer func() { <-m.calls }()
		begin := time.Now()
		answer, err := m.run(ctx, code, inner)
		m.log(code, inner, time.Since(begin), err)
		m.result(ticket, answer, err)
		if err == nil {
			m.finish(code)
		}
	})
}

// log tells the host about a command of an activity, before its result: when it has failed, or the host wants to
// know in any case. A host that sends activities gets the agent's other lines from then on.
func (m *Mux) log(code hyperstart.Code, payload []byte, took time.Duration, err error) {
	id, verbose := hyperstart.ActivityOf(payload)
	if id == "" {
		return
	}
	m.forward.Do(func() { console.Forward(func(line string) { m.event(hyperstart.LogMessage{Text: line}) }) })
	if err == nil && !verbose {
		return
	}
	message := hyperstart.LogMessage{Activity: id, Command: code.String(), Took: took}
	if err != nil {
		message.Error = err.Error()
	}
	m.event(message)
}

// maxLog bounds a text in bytes.
const maxLog = 4 << 10

func (m *Mux) event(message hyperstart.LogMessage) {
	message.Error, message.Text = message.Error[:min(len(message.Error), maxLog)], message.Text[:min(len(message.Text), maxLog)]
	if b, err := json.Marshal(hyperstart.EventMessage{Kind: hyperstart.EventLog, Log: &message}); err == nil { // it has nothing but texts and numbers
		m.out.Send(hyperstart.Event, b)
	}
}

func (m *Mux) result(ticket uint32, answer []byte, err error) {
	status := hyperstart.Ack
	if err != nil {
		status, answer = hyperstart.Error, hyperstart.EncodeError(err)
	}
	m.out.Send(hyperstart.Result, hyperstart.AppendCall(nil, ticket, status, answer))
}

func (m *Mux) run(ctx context.Context, code hyperstart.Code, payload []byte) ([]byte, error) {
	h, ok := m.handlers[code]
	if !ok {
		name := hyperstart.DialectCCv2.CodeName(code)
		return nil, hyperstart.Errorf(hyperstart.ClassNotImplemented, "%s is not a command of this guest", name)
	}
	answer, err := h(ctx, payload)
	if err == nil && len(answer) > MaxAnswer {
		return nil, hyperstart.Errorf(hyperstart.ClassResourceExhausted, "answer of %d bytes, at most %d fit in a message", len(answer), MaxAnswer)
	}
	return answer, err
}

// MaxAnswer leaves room for the header of a RESULT.
const MaxAnswer = hyperstart.MaxCtlPayload - 8

func (m *Mux) finish(code hyperstart.Code) {
	if code == hyperstart.DestroyPod {
		m.final()
	}
}
