package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Execute runs one command. args is encoded as its arguments and may be nil;
// the answer is decoded into result unless that is nil. It returns an [*Error]
// when QEMU refuses, an error wrapping [ErrClosed] when the connection ends,
// and ctx.Err() when ctx ends first: then the command may still take effect,
// and the connection stays usable.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	return c.execute(ctx, command, args, result, nil)
}

// ExecuteFile is [Client.Execute] with a file descriptor attached to the
// command, for getfd and add-fd. The connection must be a Unix socket. QEMU
// gets a duplicate; file stays the caller's.
func (c *Client) ExecuteFile(ctx context.Context, command string, args, result any, file *os.File) error {
	if _, ok := c.conn.(*net.UnixConn); !ok {
		return fmt.Errorf("qmp %s: pass file: connection is no Unix socket: %T", command, c.conn)
	}
	// The writer may still need the file when the caller has given up and
	// closed it, so the call owns a duplicate.
	dup, err := duplicate(file)
	if err != nil {
		return fmt.Errorf("qmp %s: pass file: %w", command, err)
	}
	return c.execute(ctx, command, args, result, dup)
}

func (c *Client) execute(ctx context.Context, command string, args, result any, file *os.File) error {
	p, err := c.register(command, args, file)
	if err != nil {
		closeFile(file)
		return err
	}
	defer c.forget(p)
	select {
	case c.writes <- p: // the writer owns p.file now
	case <-ctx.Done():
		closeFile(file)
		return fmt.Errorf("qmp %s: %w", command, ctx.Err())
	case <-c.closing:
		closeFile(file)
		return fmt.Errorf("qmp %s: %w", command, c.Err())
	}
	select {
	case r := <-p.reply:
		return decode(command, r, result)
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
}

// decode turns a reply into the caller's result.
func decode(command string, r reply, result any) error {
	if r.err != nil {
		if refused, ok := errors.AsType[*Error](r.err); ok {
			return refused
		}
		return fmt.Errorf("qmp %s: %w", command, r.err)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(r.value, result); err != nil {
		return fmt.Errorf("qmp %s: decode result: %w", command, err)
	}
	return nil
}

// register makes a pending call with the next id.
func (c *Client) register(command string, args any, file *os.File) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, c.err)
	}
	c.nextID++
	line, err := json.Marshal(request{Execute: command, Arguments: args, ID: c.nextID})
	if err != nil {
		return nil, fmt.Errorf("qmp %s: encode arguments: %w", command, err)
	}
	p := &call{
		id: c.nextID, name: command, line: append(line, '\n'), file: file,
		reply: make(chan reply, 1), // the one that removes it from pending sends once
	}
	c.pending[p.id] = p
	return p, nil
}

func (c *Client) forget(p *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, p.id)
}

// write sends the calls one after the other. Writing has its own goroutine so
// that a caller can give up while QEMU does not read, without leaving half a
// line on the connection.
func (c *Client) write() {
	for {
		select {
		case p := <-c.writes:
			err := c.send(p)
			closeFile(p.file)
			if err != nil {
				_ = c.fail(fmt.Errorf("%w: write: %w", ErrClosed, err))
				return
			}
		case <-c.closing:
			return
		}
	}
}

// send writes one line, with the call's file attached to its first byte.
func (c *Client) send(p *call) error {
	line := p.line
	if p.file != nil {
		sent, err := c.sendFile(line, p.file)
		if err != nil {
			return err
		}
		line = line[sent:]
	}
	_, err := c.conn.Write(line)
	return err
}

// sendFile writes a part of line, at least a byte, with the file attached.
func (c *Client) sendFile(line []byte, file *os.File) (sent int, err error) {
	socket, ok := c.conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("pass a file over a %T: only a unix socket can", c.conn)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		// A stream socket passes the rights with the first byte that it takes.
		sent, _, sendErr = socket.WriteMsgUnix(line, syscall.UnixRights(int(fd)), nil)
	})
	if err != nil {
		return 0, err
	}
	return sent, sendErr
}

// duplicate returns an independent handle on the same open file.
func duplicate(file *os.File) (*os.File, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	dup := -1
	var dupErr error
	err = raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock() // no child may inherit it before it is close-on-exec
		defer syscall.ForkLock.RUnlock()
		if dup, dupErr = syscall.Dup(int(fd)); dupErr == nil {
			syscall.CloseOnExec(dup)
		}
	})
	if err == nil {
		err = dupErr
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(dup), file.Name()), nil
}

func closeFile(file *os.File) {
	if file != nil {
		_ = file.Close()
	}
}
