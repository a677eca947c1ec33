package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// Loopback accepts the TCP connections that processes on the host make to the
// loopback of a namespace, to any port. The local address of an accepted
// connection is the one that was asked for.
//
// A program of the kernel's (sk_lookup) brings them to one listener. It is held
// by a descriptor of this process, and nothing is to be cleaned up after it.
type Loopback struct {
	*net.TCPListener

	link link.Link // nil before there is one
}

// ListenLoopback accepts the connections to 127.0.0.0/8. Kernels from 5.9 on can.
func (n *Namespace) ListenLoopback() (*Loopback, error) {
	l := &Loopback{}
	err := osthread.RunInNetNS(n.file, func() error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // such sockets cannot be in a map
		lc.Control = freeBind     // the interface may come up later
		listener, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
		if err == nil {
			l.TCPListener = listener.(*net.TCPListener) //nolint:forcetypeassert // "tcp4"
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the loopback: %w", err)
	}
	if err := l.takeAll(n); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the loopback: %w", err), l.Close())
	}
	return l, nil
}

func freeBind(_, _ string, raw syscall.RawConn) error {
	var err error
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); err != nil {
		return err
	}
	return err
}

// takeAll attaches the program to the namespace.
func (l *Loopback) takeAll(n *Namespace) error {
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer func() { _ = sockets.Close() }() // the program holds it
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var putErr error
	if err := raw.Control(func(fd uintptr) { putErr = sockets.Put(uint32(0), uint64(fd)) }); err != nil || putErr != nil {
		return errors.Join(err, putErr)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "Apache-2.0", Instructions: toLoopback(sockets.FD()),
	})
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }() // the link holds it
	if raw, err = n.file.SyscallConn(); err != nil {
		return err
	}
	var linkErr error
	if err := raw.Control(func(fd uintptr) { l.link, linkErr = link.AttachNetNs(int(fd), program) }); err != nil {
		return err
	}
	return linkErr
}

// toLoopback gives TCP connections to 127.0.0.0/8 to the one socket of a map.
// All others go the usual way.
func toLoopback(sockets int) asm.Instructions {
	const loopbackNet = 127
	const family, protocol, localIP4 = 8, 12, 40 // offsets in struct bpf_sk_lookup
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), // the context
		asm.LoadMem(asm.R2, asm.R6, family, asm.Word),
		asm.JNE.Imm(asm.R2, unix.AF_INET, "pass"),
		asm.LoadMem(asm.R2, asm.R6, protocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.IPPROTO_TCP, "pass"),
		asm.LoadMem(asm.R2, asm.R6, localIP4, asm.Byte), // the first one on the wire
		asm.JNE.Imm(asm.R2, loopbackNet, "pass"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word), // the key, on the stack
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, sockets),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"), // no such socket left
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkAssign.Call(),
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.FnSkRelease.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // SK_PASS
		asm.Return(),
	}
}

// Close ends it. Connections that were accepted stay.
func (l *Loopback) Close() error {
	err := l.TCPListener.Close()
	if l.link != nil {
		err = errors.Join(err, l.link.Close())
		l.link = nil
	}
	return err
}
