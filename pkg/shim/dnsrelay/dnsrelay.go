package dnsrelay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

const (
	port = 53
	// maxQuestions is how many are asked at once, each on a thread. Others are dropped:
	// who wants to know asks again.
	maxQuestions = 64
	// maxAnswers is how many are passed on at once: a guest works on a number of commands
	// at a time and refuses others, and there are more urgent ones.
	maxAnswers = 8
	// patience is how long a server has for its answer, as long as resolvers wait.
	patience = 5 * time.Second
	// maxMessage and header are sizes of a message, in bytes.
	maxMessage = 1<<16 - 1
	header     = 12
)

// Guest passes questions on.
type Guest interface {
	RelayDNS(ctx context.Context, r hyperstart.RelayDNSRequest) error
	AnswerDNS(ctx context.Context, a hyperstart.DNSMessage) error
}

// Relay relays for one pod. Its methods may be called concurrently.
type Relay struct {
	netns  *os.File
	path   string          // of resolv.conf on the host
	ctx    context.Context //nolint:containedctx // of all questions, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // one element per question
	turns  chan struct{} // one element per answer that is passed on

	refreshing sync.Mutex // held while the guest is told of servers

	mu      sync.Mutex   // guards the fields below
	guest   Guest        // nil before Start
	servers []netip.Addr // that the guest may ask
	closed  bool
}

// New returns a relay to the servers in a network namespace that the resolv.conf at path
// names. netns stays the caller's, and has to last until Close.
func New(ctx context.Context, netns *os.File, path string) *Relay {
	r := &Relay{netns: netns, path: path, slots: make(chan struct{}, maxQuestions), turns: make(chan struct{}, maxAnswers)}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return r
}

// Start relays what a guest asks, until Close.
func (r *Relay) Start(guest Guest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guest = guest
}

// Close ends it, and joins all goroutines. It is idempotent.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	return nil
}

// Refresh returns when the guest can ask the servers that the file names now. A guest
// that cannot relay has a network without them.
func (r *Relay) Refresh(ctx context.Context) {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	if err := r.refresh(ctx); err != nil && ctx.Err() == nil {
		log.G(r.ctx).WithError(err).Warn("name servers on the loopback of the pod's network namespace cannot be asked")
	}
}

func (r *Relay) refresh(ctx context.Context) error {
	named, err := readServers(r.path)
	if err != nil {
		return fmt.Errorf("read the pod's resolv.conf: %w", err)
	}
	r.mu.Lock()
	known, guest := r.servers, r.guest
	var added []string
	for _, server := range named {
		if !slices.Contains(known, server) && len(r.servers) < maxServers {
			added = append(added, server.String())
			r.servers = append(slices.Clip(r.servers), server) // it may be asked for at once
		}
	}
	stop := len(added) == 0 || guest == nil || r.closed
	if stop {
		r.servers = known
	}
	r.mu.Unlock()
	if stop {
		return nil
	}
	if err := guest.RelayDNS(ctx, hyperstart.RelayDNSRequest{Servers: added}); err != nil {
		r.mu.Lock()
		r.servers = known
		r.mu.Unlock()
		return err
	}
	return nil
}

// Ask passes a question of the guest on, without blocking. What must not be asked is
// dropped.
func (r *Relay) Ask(q hyperstart.DNSMessage) {
	server, err := netip.ParseAddr(q.Server)
	if err != nil || len(q.Message) < header || len(q.Message) > maxMessage {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.guest == nil || !slices.Contains(r.servers, server) {
		return
	}
	select {
	case r.slots <- struct{}{}:
	default:
		return
	}
	guest := r.guest
	r.wg.Go(func() {
		defer func() { <-r.slots }()
		answer, err := r.exchange(netip.AddrPortFrom(server, port), q)
		if err != nil {
			log.G(r.ctx).WithError(err).WithField("server", server.String()).Debug("relay a question to a name server")
		}
		if answer == nil {
			return
		}
		if err := r.pass(guest, hyperstart.DNSMessage{ID: q.ID, Message: answer}); err != nil && r.ctx.Err() == nil {
			log.G(r.ctx).WithError(err).Debug("pass on the answer of a name server")
		}
	})
}

// pass passes an answer on when it is its turn.
func (r *Relay) pass(guest Guest, answer hyperstart.DNSMessage) error {
	select {
	case r.turns <- struct{}{}:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	defer func() { <-r.turns }()
	return guest.AnswerDNS(r.ctx, answer)
}

// exchange asks a server. Without one the answer says that, as the guest cannot be
// refused a connection; nil is none at all.
func (r *Relay) exchange(server netip.AddrPort, q hyperstart.DNSMessage) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	network := "udp4"
	if q.TCP {
		network = "tcp4"
	}
	var conn net.Conn
	err = osthread.RunInNetNS(r.netns, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, server.String())
		return err
	})
	if err == nil {
		defer func() { _ = conn.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
		defer stop()
		if q.TCP {
			answer, err = askTCP(conn, q.Message)
		} else {
			answer, err = askUDP(conn, q.Message)
		}
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
		return failure(q.Message), err
	}
	return answer, err
}

// askUDP takes the first datagram that answers the question.
func askUDP(conn net.Conn, message []byte) ([]byte, error) {
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	buf := make([]byte, maxMessage)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if n >= header && buf[0] == message[0] && buf[1] == message[1] {
			return buf[:n], nil
		}
	}
}

func askTCP(conn net.Conn, message []byte) ([]byte, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	answer := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(conn, answer)
	if err == nil && len(answer) < header {
		err = io.ErrUnexpectedEOF
	}
	return answer, err
}

// failure is the answer of a server that failed (SERVFAIL).
func failure(question []byte) []byte {
	const response, servFail, codeMask = 0x80, 2, 0x0f
	answer := slices.Clone(question)
	answer[2] |= response
	answer[3] = answer[3]&^codeMask | servFail
	return answer
}
