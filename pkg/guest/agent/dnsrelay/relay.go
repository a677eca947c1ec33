package dnsrelay

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf/link"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/internal/console"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

const (
	// maxServers is more than a resolver asks (MAXNS of resolv.h is 3), for all
	// containers of a pod.
	maxServers = 16
	// maxWaiting bounds the questions that the host has not answered; others are
	// dropped, and asked again by who wants to know.
	maxWaiting = 256
	// patience is how long an answer is waited for: twice as long as resolvers do.
	patience = 10 * time.Second
	// maxConnections bounds the TCP connections to one server.
	maxConnections = 64
	// header is that of a message.
	header = 12
)

// Relay passes on questions. Its methods may be called concurrently.
type Relay struct {
	ask  func(hyperstart.DNSMessage)
	turn func(server netip.Addr, udp, tcp uint16) ([]link.Link, error) // redirect, but for tests

	mu      sync.Mutex                 // guards the fields below
	servers map[netip.Addr][]link.Link // nil while it is made
	waiting map[uint64]*question
	last    uint64 // id of the last question
}

// question is one that waits for its answer.
type question struct {
	answer  func(message []byte)
	expires *time.Timer
}

// New returns a relay for what runs in the control groups below root. ask has a question
// for the host, and does not block for long.
func New(root string, ask func(hyperstart.DNSMessage)) *Relay {
	turn := func(server netip.Addr, udp, tcp uint16) ([]link.Link, error) { return redirect(root, server, udp, tcp) }
	return &Relay{ask: ask, turn: turn, servers: make(map[netip.Addr][]link.Link), waiting: make(map[uint64]*question)}
}

// Serve takes the place of the servers from now on.
func (r *Relay) Serve(_ context.Context, req hyperstart.RelayDNSRequest) error {
	for _, text := range req.Servers {
		server, err := netip.ParseAddr(text)
		if err != nil || !server.Is4() || !server.IsLoopback() {
			return hyperstart.Errorf(hyperstart.ClassInvalidArgument, "relay questions to name server %q: not an IPv4 address of the loopback", text)
		}
		if err := r.add(server); err != nil {
			return fmt.Errorf("relay questions to name server %s: %w", server, err)
		}
	}
	return nil
}

// add serves a server, unless it is served.
func (r *Relay) add(server netip.Addr) error {
	r.mu.Lock()
	_, served := r.servers[server]
	full := len(r.servers) >= maxServers
	if !served && !full {
		r.servers[server] = nil
	}
	r.mu.Unlock()
	switch {
	case served:
		return nil
	case full:
		return hyperstart.Errorf(hyperstart.ClassUnavailable, "there are %d already", maxServers)
	}
	links, err := r.serve(server)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil { // it may be asked for again
		delete(r.servers, server)
		return err
	}
	r.servers[server] = links
	return nil
}

// serve opens the sockets and turns what is for the server to them.
func (r *Relay) serve(server netip.Addr) ([]link.Link, error) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 0)))
	if err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(server, 0)))
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	links, err := r.turn(server, portOf(udp.LocalAddr()), portOf(tcp.Addr()))
	if err != nil {
		_, _ = udp.Close(), tcp.Close()
		return nil, err
	}
	go func() { defer console.Guard(); r.serveUDP(server.String(), udp) }()
	go func() { defer console.Guard(); r.serveTCP(server.String(), tcp) }()
	return links, nil
}

func portOf(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }

// post asks the host. answer gets what comes in time, at most once; the question is
// gone then, or when the returned function is called.
func (r *Relay) post(server string, tcp bool, message []byte, answer func([]byte)) (forget func()) {
	r.mu.Lock()
	if len(message) < header || len(r.waiting) >= maxWaiting {
		r.mu.Unlock()
		return func() {}
	}
	r.last++
	id := r.last
	forget = func() { r.take(id) }
	r.waiting[id] = &question{answer: answer, expires: time.AfterFunc(patience, forget)}
	r.mu.Unlock()
	r.ask(hyperstart.DNSMessage{ID: id, Server: server, TCP: tcp, Message: message})
	return forget
}

// take removes a question.
func (r *Relay) take(id uint64) *question {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.waiting[id]
	delete(r.waiting, id)
	return q
}

// Answer passes an answer on to who has asked; nobody may be left.
func (r *Relay) Answer(_ context.Context, a hyperstart.DNSMessage) error {
	if q := r.take(a.ID); q != nil {
		q.expires.Stop()
		q.answer(a.Message)
	}
	return nil
}

// maxMessage is the size of a message, in bytes.
const maxMessage = 1<<16 - 1

func (r *Relay) serveUDP(server string, conn *net.UDPConn) {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			console.Logf("questions to name server %s: %v", server, err)
			return
		}
		r.post(server, false, append([]byte(nil), buf[:n]...), func(answer []byte) {
			_, _ = conn.WriteToUDPAddrPort(answer, from) // a datagram may be lost
		})
	}
}

func (r *Relay) serveTCP(server string, l *net.TCPListener) {
	slots := make(chan struct{}, maxConnections)
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			console.Logf("questions to name server %s: %v", server, err)
			return
		}
		select {
		case slots <- struct{}{}:
			go func() {
				defer console.Guard()
				defer func() { <-slots }()
				defer func() { _ = conn.Close() }()
				for err := error(nil); err == nil; {
					err = r.exchange(server, conn)
				}
			}()
		default:
			_ = conn.Close()
		}
	}
}

// exchange reads one question of a connection and writes the answer. An error ends the
// connection.
func (r *Relay) exchange(server string, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, message); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil { // for the answer, and who reads it
		return err
	}
	answers := make(chan []byte, 1)
	defer r.post(server, true, message, func(answer []byte) { answers <- answer })()
	select {
	case answer := <-answers:
		if len(answer) > maxMessage {
			return fmt.Errorf("answer has %d bytes", len(answer))
		}
		_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
		return err
	case <-time.After(patience):
		return context.DeadlineExceeded
	}
}
