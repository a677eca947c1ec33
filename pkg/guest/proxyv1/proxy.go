package proxyv1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/proxy"
	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hangup"
	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
	v1 "github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto/v1"
)

// Proxy serves clients of version 1.
type Proxy struct {
	wg    sync.WaitGroup // streams
	grace time.Duration  // see leaveGrace

	mu  sync.Mutex     // guards vms and what is in it
	vms map[string]*vm // by their ids
}

// vm has the sequence numbers of one VM.
type vm struct {
	next    uint64
	streams map[uint64]*stream // by their first number
}

// maxStreams bounds the open streams of a VM, which have a descriptor each.
const maxStreams = 1024

// New returns a proxy without clients.
func New() *Proxy { return &Proxy{grace: leaveGrace, vms: make(map[string]*vm)} }

// Close joins what is left of the streams, whose server has ended.
func (p *Proxy) Close() { p.wg.Wait() }

// Serve serves one connection until it ends; the caller closes it. It returns nil when the client
// closed it between messages.
func (p *Proxy) Serve(server *proxy.Server, conn net.Conn) error {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a client of version 1 on %T, which cannot carry descriptors", conn)
	}
	frames, err := dial(server)
	if err != nil {
		return err
	}
	defer frames.close()
	c := &client{proxy: p, server: server, frames: frames}
	r, w := v1.NewReader(conn), v1.NewWriter(conn)
	for {
		req, err := r.ReadRequest()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// A client that has gone ends its command: this one is the client there.
		gone, stop := hangup.Watch(context.Background(), conn)
		ended := context.AfterFunc(gone, frames.close)
		err = answer(c, req, w, unixConn)
		if ended() {
			stop()
			if err != nil {
				return err
			}
			continue
		}
		stop()
		return err
	}
}

// answer runs a request and answers it. An error ends the connection.
func answer(c *client, req v1.Request, w *v1.Writer, conn *net.UnixConn) error {
	data, file, err := c.run(req)
	if err != nil {
		return w.WriteError(errors.New(proxy.Original(err)))
	}
	if file == nil {
		return w.WriteResponse(data)
	}
	defer func() { _ = file.Close() }()
	if err := w.WriteResponse(data); err != nil {
		return err
	}
	return v1.SendFile(conn, file)
}

// client is one connection of a client. Its reader alone uses it.
type client struct {
	proxy  *Proxy
	server *proxy.Server
	frames *frames
	vm     string // that it is attached to, or ""
}

// run returns the data of the response, and the file that follows it: the caller's, nil for most.
func (c *client) run(req v1.Request) (data any, file *os.File, err error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	switch req.ID {
	case v1.MethodHello:
		data, err = c.hello(req)
	case v1.MethodAttach:
		data, err = c.attach(req)
	case v1.MethodBye:
		err = c.bye(req)
	case v1.MethodHyper:
		err = c.hyper(req)
	case v1.MethodAllocateIO:
		return c.allocateIO(req)
	}
	return data, nil, err
}

func (c *client) hello(req v1.Request) (any, error) {
	var hello v1.Hello
	if err := req.Decode(&hello); err != nil {
		return nil, err
	}
	if hello.ContainerID == "" || hello.CtlSerial == "" || hello.IOSerial == "" {
		return nil, errors.New("malformed hello command")
	}
	_, err := c.frames.ask(proxyproto.CmdRegisterVM, proxyproto.RegisterVM{
		ContainerID: hello.ContainerID, CtlSerial: hello.CtlSerial, IOSerial: hello.IOSerial, Console: hello.Console,
	})
	if err != nil {
		return nil, err
	}
	c.vm = hello.ContainerID
	return v1.HelloResult{Version: v1.Version}, nil
}

func (c *client) attach(req v1.Request) (any, error) {
	var attach v1.Attach
	if err := req.Decode(&attach); err != nil {
		return nil, err
	}
	if _, err := c.frames.ask(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: attach.ContainerID}); err != nil {
		return nil, err
	}
	c.vm = attach.ContainerID
	return v1.HelloResult{Version: v1.Version}, nil
}

func (c *client) bye(req v1.Request) error {
	var bye v1.Bye
	if err := req.Decode(&bye); err != nil {
		return err
	}
	if _, err := c.frames.ask(proxyproto.CmdUnregisterVM, proxyproto.UnregisterVM{ContainerID: bye.ContainerID}); err != nil {
		return err
	}
	c.vm = ""
	return nil
}

// errNotAttached is the original's.
var errNotAttached = errors.New("client not attached to a vm")

func (c *client) allocateIO(req v1.Request) (any, *os.File, error) {
	var allocate v1.AllocateIO
	if err := req.Decode(&allocate); err != nil {
		return nil, nil, err
	}
	if err := allocate.Validate(); err != nil {
		return nil, nil, err
	}
	if c.vm == "" {
		return nil, nil, errNotAttached
	}
	s, file, err := c.proxy.open(c.server, c.vm, allocate.NStreams, c.newToken)
	if err != nil {
		return nil, nil, err
	}
	return v1.AllocateIOResult{IOBase: s.base}, file, nil
}

// newToken asks for a token of the VM.
func (c *client) newToken() (string, error) {
	answer, err := c.frames.ask(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: c.vm, NumIOStreams: 1})
	if err != nil {
		return "", err
	}
	var r proxyproto.AttachVMResponse
	if err := json.Unmarshal(answer, &r); err != nil {
		return "", fmt.Errorf("decode tokens: %w", err)
	}
	if len(r.IO.Tokens) != 1 {
		return "", fmt.Errorf("got %d tokens, want 1", len(r.IO.Tokens))
	}
	return r.IO.Tokens[0], nil
}

// add gives a stream its numbers.
func (p *Proxy) add(id string, s *stream) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.vms[id]
	if v == nil {
		v = &vm{next: 1, streams: make(map[uint64]*stream)}
		p.vms[id] = v
	}
	if len(v.streams) >= maxStreams {
		return fmt.Errorf("vm %s has %d streams already", id, maxStreams)
	}
	s.base = v.next
	v.next += uint64(s.sides)
	v.streams[s.base] = s
	return nil
}

// remove forgets a stream. Its numbers are not given again.
func (p *Proxy) remove(id string, s *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.vms[id].streams, s.base)
}

// find returns the stream with a first number.
func (p *Proxy) find(id string, base uint64) (*stream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := p.vms[id]; v != nil {
		if s := v.streams[base]; s != nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no stream was allocated with sequence number %d, or its descriptor was closed", base)
}
