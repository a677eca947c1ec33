package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Functions of the kernel that programs call, by their numbers in bpf.h.
const (
	helperMapLookup = 1
	helperSkRelease = 86
	helperSkAssign  = 124
)

// Fields of struct bpf_sk_lookup by their offsets.
const (
	lookupFamily   = 8
	lookupProtocol = 12
	lookupLocalIP4 = 40 // in the order of the network
)

// instruction is one of the kernel's virtual machine: operation, destination
// and source register, offset, immediate value.
type instruction struct {
	op       uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Operations, as bpf_common.h and bpf.h make them up.
const (
	opLoad32  = 0x61 // dst = *(u32 *)(src + off)
	opLoad8   = 0x71
	opStore32 = 0x62 // *(u32 *)(dst + off) = imm
	opLoadMap = 0x18 // dst = map with descriptor imm; two instructions
	opMove    = 0xbf // dst = src
	opSet     = 0xb7 // dst = imm
	opAdd     = 0x07
	opIfNot   = 0x55 // jump off instructions when dst is not imm
	opIf      = 0x15
	opCall    = 0x85
	opExit    = 0x95
)

// toLoopback is a program that gives TCP connections to 127.0.0.0/8 to the one
// socket of a map. All others go the usual way, which is to the last but one
// instruction.
func toLoopback(sockets int) []instruction {
	const loopbackNet = 127
	return []instruction{
		{op: opMove, dst: 6, src: 1}, // r1 is the context
		{op: opLoad32, dst: 2, src: 6, off: lookupFamily},
		{op: opIfNot, dst: 2, imm: unix.AF_INET, off: 18},
		{op: opLoad32, dst: 2, src: 6, off: lookupProtocol},
		{op: opIfNot, dst: 2, imm: unix.IPPROTO_TCP, off: 16},
		{op: opLoad8, dst: 2, src: 6, off: lookupLocalIP4},
		{op: opIfNot, dst: 2, imm: loopbackNet, off: 14},
		{op: opStore32, dst: 10, off: -4}, // r10 is the stack; the key is 0
		{op: opMove, dst: 2, src: 10},
		{op: opAdd, dst: 2, imm: -4},
		{op: opLoadMap, dst: 1, src: unix.BPF_PSEUDO_MAP_FD, imm: int32(sockets)},
		{},
		{op: opCall, imm: helperMapLookup},
		{op: opIf, dst: 0, off: 7}, // no such socket any more
		{op: opMove, dst: 7, src: 0},
		{op: opMove, dst: 1, src: 6},
		{op: opMove, dst: 2, src: 7},
		{op: opSet, dst: 3},
		{op: opCall, imm: helperSkAssign},
		{op: opMove, dst: 1, src: 7},
		{op: opCall, imm: helperSkRelease},
		{op: opSet, dst: 0, imm: 1}, // SK_PASS
		{op: opExit},
	}
}

// newSockMap makes a map for one socket.
func newSockMap() (int, error) {
	attr := struct{ kind, keySize, valueSize, entries uint32 }{unix.BPF_MAP_TYPE_SOCKMAP, 4, 8, 1}
	return bpf("make a map", unix.BPF_MAP_CREATE, &attr)
}

// setSockMap puts a socket in its place.
func setSockMap(sockets, socket int) error {
	key, value := uint32(0), uint64(socket)
	attr := struct {
		fd, _      uint32
		key, value unsafe.Pointer
		flags      uint64
	}{
		fd:  uint32(sockets),
		key: unsafe.Pointer(&key), value: unsafe.Pointer(&value), //nolint:gosec // what the system call takes
	}
	_, err := bpf("set a socket", unix.BPF_MAP_UPDATE_ELEM, &attr)
	return err
}

// loadSockLookup has the kernel examine and take a program.
func loadSockLookup(program []instruction) (int, error) {
	var code bytes.Buffer
	for _, i := range program {
		registers := i.src<<4 | i.dst
		for _, field := range []any{i.op, registers, i.off, i.imm} {
			if err := binary.Write(&code, binary.NativeEndian, field); err != nil {
				return -1, err
			}
		}
	}
	text, license := code.Bytes(), []byte("Apache-2.0\x00")
	attr := struct {
		kind, count      uint32
		code, license    unsafe.Pointer
		logLevel, logLen uint32
		log              uint64
		_, _             uint32 // version of the kernel, flags
		_                [16]byte
		_, attach        uint32
	}{
		kind: unix.BPF_PROG_TYPE_SK_LOOKUP, count: uint32(len(program)), attach: unix.BPF_SK_LOOKUP,
		code: unsafe.Pointer(&text[0]), license: unsafe.Pointer(&license[0]), //nolint:gosec // what the system call takes
	}
	return bpf("load a program", unix.BPF_PROG_LOAD, &attr)
}

// attachSockLookup runs a program in a network namespace as long as the
// descriptor that it returns is open.
func attachSockLookup(program, netns int) (int, error) {
	attr := struct{ program, target, attach, flags uint32 }{uint32(program), uint32(netns), unix.BPF_SK_LOOKUP, 0}
	return bpf("attach a program", unix.BPF_LINK_CREATE, &attr)
}

// bpf is the system call, whose descriptors are closed on exec.
func bpf[T any](what string, command int, attr *T) (int, error) {
	address := unsafe.Pointer(attr) //nolint:gosec // what the system call takes
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(address), unsafe.Sizeof(*attr))
	if errno != 0 {
		return -1, fmt.Errorf("bpf: %s: %w", what, errno)
	}
	return int(fd), nil
}
