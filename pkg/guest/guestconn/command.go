package guestconn

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/activity"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
)

// Command sends a command and returns the payload of its ACK. An ERROR reply
// is a [*hyperstart.CommandError]. When ctx ends first the command is
// abandoned: the guest still carries it out, and its answer is dropped.
//
// With a ccv2 guest commands do not wait for each other; with others they are
// sent one after the other.
func (c *Conn) Command(ctx context.Context, code hyperstart.Code, payload []byte) ([]byte, error) {
	if len(payload) > hyperstart.MaxCtlPayload-hyperstart.CtlHeaderLen {
		return nil, fmt.Errorf("send %s: payload of %d bytes is above the limit of %d", code, len(payload), hyperstart.MaxCtlPayload)
	}
	if c.Dialect().HasCalls() {
		return c.call(ctx, code, payload)
	}
	return c.roundTrip(ctx, code, payload)
}

// roundTrip sends the command as it is and holds the control port until the reply.
func (c *Conn) roundTrip(ctx context.Context, code hyperstart.Code, payload []byte) ([]byte, error) {
	p := newPending(code)
	if err := c.send(ctx, p, hyperstart.AppendCtl(nil, code, payload)); err != nil {
		return nil, err
	}
	return p.wait(ctx)
}

// send acquires the control port for p and sends its message. An error means that
// nothing was sent and that the port is free.
func (c *Conn) send(ctx context.Context, p *pending, message []byte) error {
	select {
	case c.slot <- struct{}{}:
	case <-c.done:
		return fmt.Errorf("send %s: %w", p.code, c.Err())
	case <-ctx.Done():
		return fmt.Errorf("send %s: %w", p.code, ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		<-c.slot
		return fmt.Errorf("send %s: %w", p.code, c.err)
	}
	c.pending = p
	c.flow.sent += uint64(len(message))
	c.opts.Tap.Ctl(false, hyperstart.Code(binary.BigEndian.Uint32(message)), message[hyperstart.CtlHeaderLen:])
	// A guest that does not read its port must not keep the caller beyond ctx.
	// Under the lock, so that Close waits for the goroutine.
	c.wg.Go(func() {
		if _, err := c.ctl.Write(message); err != nil {
			c.fail(fmt.Errorf("control port: %w", err))
		}
		c.release(p)
	})
	return nil
}

// release frees the control port once p has been both written and answered: a
// guest that answers what it does not read must not pile up writers.
func (c *Conn) release(p *pending) {
	if p.open.Add(-1) == 0 {
		<-c.slot
	}
}

// call wraps the command in CALL, so that the control port is free again as
// soon as the guest has accepted it.
func (c *Conn) call(ctx context.Context, code hyperstart.Code, payload []byte) ([]byte, error) {
	result, err := c.newCall(code)
	if err != nil {
		return nil, err
	}
	accepted := newPending(code)
	accepted.ticket = result.ticket
	message := hyperstart.AppendCtl(nil, hyperstart.Call, callPayload(ctx, result.ticket, code, payload))
	if err := c.send(ctx, accepted, message); err != nil {
		c.mu.Lock()
		c.calls.remove(result.ticket) // no RESULT will come
		c.mu.Unlock()
		return nil, err
	}
	if _, err = accepted.wait(ctx); err == nil {
		payload, err = result.wait(ctx)
	}
	if err != nil {
		c.mu.Lock()
		c.calls.abandon(result.ticket) // unless it was answered
		c.mu.Unlock()
		return nil, err
	}
	return payload, nil
}

// callPayload wraps a command, with the activity that it belongs to.
func callPayload(ctx context.Context, ticket uint32, code hyperstart.Code, payload []byte) []byte {
	a := activity.Of(ctx)
	if a.ID == "" || len(payload) > maxWithActivity {
		return hyperstart.AppendCall(nil, ticket, code, payload)
	}
	return hyperstart.AppendActivity(hyperstart.AppendCall(nil, ticket, code, nil), payload, a.ID, a.Verbose)
}

// maxWithActivity leaves room for an activity in the largest message.
const maxWithActivity = hyperstart.MaxCtlPayload - hyperstart.CtlHeaderLen - 128

// newCall acquires a ticket.
func (c *Conn) newCall(code hyperstart.Code) (*pending, error) {
	p := newPending(code)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, fmt.Errorf("send %s: %w", code, c.err)
	}
	return p, c.calls.add(p)
}

func (p *pending) wait(ctx context.Context) ([]byte, error) {
	select {
	case r := <-p.reply:
		if r.err != nil {
			if _, refused := errors.AsType[*hyperstart.CommandError](r.err); refused {
				return nil, r.err
			}
			return nil, fmt.Errorf("%s: %w", p.code, r.err)
		}
		return r.payload, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer from the guest: %w", p.code, ctx.Err())
	}
}

func (c *Conn) readCtl() error {
	r := hyperstart.NewCtlReader(bufio.NewReader(c.ctl))
	for {
		code, payload, err := r.Read()
		if err != nil {
			return fmt.Errorf("control port: %w", err)
		}
		c.opts.Tap.Ctl(true, code, payload)
		if err := c.handleCtl(code, payload); err != nil {
			return fmt.Errorf("control port: %w", err)
		}
	}
}

func (c *Conn) handleCtl(code hyperstart.Code, payload []byte) error {
	dialect := c.Dialect()
	asyncEvent, hasAsync := dialect.AsyncEvent()
	switch {
	case code == hyperstart.Ready:
		return c.handleReady()
	case code == hyperstart.Ack || code == hyperstart.Error:
		return c.handleReply(dialect, code, payload)
	case code == hyperstart.Next:
		return c.handleNext(payload)
	case code == hyperstart.Result && dialect.HasCalls():
		return c.handleResult(dialect, payload)
	case code == hyperstart.Event && dialect.HasCalls():
		return c.handleEvent(payload)
	case hasAsync && code == asyncEvent:
		return c.handleAsync(payload)
	}
	return fmt.Errorf("guest sent %s, which dialect %s does not have", dialect.CodeName(code), dialect)
}

func (c *Conn) handleReady() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gotReady {
		return errors.New("guest sent READY twice")
	}
	c.gotReady = true
	close(c.ready)
	return nil
}

func (c *Conn) handleReply(dialect hyperstart.Dialect, code hyperstart.Code, payload []byte) error {
	c.mu.Lock()
	p := c.pending
	c.pending = nil
	if p != nil && code == hyperstart.Error {
		c.calls.remove(p.ticket) // a CALL that was refused has no RESULT
	}
	c.mu.Unlock()
	if p == nil {
		return errUnsolicited
	}
	c.release(p)
	p.reply <- makeReply(dialect, p.code, code, payload)
	return nil
}

func makeReply(dialect hyperstart.Dialect, command, code hyperstart.Code, payload []byte) reply {
	if code == hyperstart.Error {
		refused := hyperstart.ParseError(dialect, command, payload)
		refused.Message = printable.Line(refused.Message, printable.MaxText)
		return reply{err: refused}
	}
	return reply{payload: bytes.Clone(payload)}
}

// handleNext checks the flow report of the C agents: the sum of all NEXT is
// what the guest has consumed, so it cannot exceed what was sent.
func (c *Conn) handleNext(payload []byte) error {
	if len(payload) != 4 {
		return fmt.Errorf("guest sent NEXT with %d bytes, not 4", len(payload))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flow.consumed += uint64(binary.BigEndian.Uint32(payload))
	if c.flow.consumed > c.flow.sent && !c.opts.Reattach {
		return fmt.Errorf("guest acknowledged %d bytes of %d sent", c.flow.consumed, c.flow.sent)
	}
	return nil
}

func (c *Conn) handleResult(dialect hyperstart.Dialect, payload []byte) error {
	ticket, code, payload, err := hyperstart.ParseCall(payload)
	if err != nil {
		return err
	}
	if code != hyperstart.Ack && code != hyperstart.Error {
		return fmt.Errorf("guest sent RESULT with code %d", uint32(code))
	}
	c.mu.Lock()
	p, err := c.calls.answer(ticket)
	c.mu.Unlock()
	if p == nil {
		return err
	}
	p.reply <- makeReply(dialect, p.code, code, payload)
	return nil
}

func (c *Conn) handleEvent(payload []byte) error {
	var event hyperstart.EventMessage
	if err := json.Unmarshal(payload, &event); err != nil {
		return fmt.Errorf("guest sent a malformed EVENT: %w", printable.Error(err, printable.MaxText))
	}
	if c.opts.Event != nil {
		c.opts.Event(event)
	}
	return nil
}

func (c *Conn) handleAsync(payload []byte) error {
	var event hyperstart.AsyncEvent
	if err := json.Unmarshal(payload, &event); err != nil {
		// The agent inserts names without escaping them, so this can be an odd
		// container id as well as an attack; either way the exit is lost.
		return fmt.Errorf("guest sent a malformed PROCESSASYNCEVENT: %w", printable.Error(err, printable.MaxText))
	}
	if c.opts.Exited != nil && event.Event == "finished" {
		c.opts.Exited(event)
	}
	return nil
}
