package dnsrelay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// dnsPort is the port of name servers.
const dnsPort = 53

// hook is where a program runs, for one protocol.
type hook struct {
	attach   ebpf.AttachType
	protocol int32
	back     bool // it is told where an answer comes from
}

var hooks = []hook{
	{ebpf.AttachCGroupInet4Connect, unix.IPPROTO_TCP, false},
	{ebpf.AttachCGroupInet4Connect, unix.IPPROTO_UDP, false},
	{ebpf.AttachCgroupInet4GetPeername, unix.IPPROTO_TCP, true},
	{ebpf.AttachCgroupInet4GetPeername, unix.IPPROTO_UDP, true},
	{ebpf.AttachCGroupUDP4Sendmsg, unix.IPPROTO_UDP, false},
	{ebpf.AttachCGroupUDP4Recvmsg, unix.IPPROTO_UDP, true},
}

// redirect turns what processes in the control groups below root send to port 53 of an
// address to other ports of it, and lets them think that answers come from there: processes
// in the guest's network namespace. In those that containers make, as a container engine
// does, the address is another's. It ends with the links.
func redirect(root string, server netip.Addr, udp, tcp uint16) (links []link.Link, err error) {
	for _, h := range hooks {
		port := udp
		if h.protocol == unix.IPPROTO_TCP {
			port = tcp
		}
		l, err := h.install(root, server, port)
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("turn questions to port %d (%s): %w", dnsPort, h.attach, err)
		}
		links = append(links, l)
	}
	return links, nil
}

func (h hook) install(root string, server netip.Addr, port uint16) (link.Link, error) {
	from, to := uint16(dnsPort), port
	if h.back {
		from, to = to, from
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSockAddr, AttachType: h.attach, License: "Apache-2.0", Instructions: h.change(server, from, to),
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }() // the link holds it
	return link.AttachCgroup(link.CgroupOptions{Path: root, Attach: h.attach, Program: program})
}

// change changes the port of an address; all others stay.
func (h hook) change(server netip.Addr, from, to uint16) asm.Instructions {
	const address, port, protocol = 4, 24, 36 // offsets in struct bpf_sock_addr
	ip := server.As4()
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetNetnsCookie.Call(),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Imm(asm.R1, 0), // of the first namespace
		asm.FnGetNetnsCookie.Call(),
		asm.JNE.Reg(asm.R0, asm.R7, "pass"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R2, asm.R1, address, asm.Word),
		asm.JNE.Imm32(asm.R2, int32(binary.NativeEndian.Uint32(ip[:])), "pass"),
		asm.LoadMem(asm.R2, asm.R1, port, asm.Word),
		asm.JNE.Imm32(asm.R2, onTheWire(from), "pass"),
		asm.LoadMem(asm.R2, asm.R1, protocol, asm.Word),
		asm.JNE.Imm32(asm.R2, h.protocol, "pass"),
		asm.Mov.Imm32(asm.R2, onTheWire(to)),
		asm.StoreMem(asm.R1, port, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), // allow it
		asm.Return(),
	}
}

// onTheWire is a port as the kernel has it in a word.
func onTheWire(port uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port)))
}
