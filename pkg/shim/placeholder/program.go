package placeholder

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// programFile is what a program directory has.
const programFile = "placeholder"

// signalFD is where the program writes to.
const signalFD = 3

// The program that all processes run. It goes to its root directory, gives itself the
// name that is its only environment, blocks all signals, and writes the number of
// each one that comes to descriptor 3, a byte each:
//
//	chdir("/")
//	prctl(PR_SET_NAME, envp[0])
//	rt_sigprocmask(SIG_SETMASK, all, NULL, 8)
//	for {
//		if number := rt_sigtimedwait(all, 0, 0, 8); number > 0 {
//			write(3, &number, 1)
//		}
//	}
//
// A program in Go takes some MiB and a hundred times as long to start, for each
// container and each exec; the shim has no other program at hand that it could rely on.

// program is the executable file.
func program() []byte {
	const base = 0x10000 // where it is loaded
	headers := binary.Size(elf.Header64{}) + binary.Size(elf.Prog64{})
	size := uint64(headers + len(code))
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: machine, Version: uint32(elf.EV_CURRENT),
		Entry: base + uint64(headers), Phoff: uint64(binary.Size(elf.Header64{})),
		Ehsize: uint16(binary.Size(elf.Header64{})), Phentsize: uint16(binary.Size(elf.Prog64{})), Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base,
		Filesz: size, Memsz: size, Align: base,
	}
	var b bytes.Buffer
	for _, part := range []any{h, segment, code} {
		_ = binary.Write(&b, binary.LittleEndian, part) // a buffer takes everything
	}
	return b.Bytes()
}

// newProgramDir makes a file system with the program, which is mounted nowhere. The caller closes it.
func newProgramDir() (*os.File, error) {
	dir, err := mountTmpfs()
	if err != nil {
		return nil, fmt.Errorf("make a file system for placeholders: %w", err)
	}
	at := int(dir.Fd())
	fd, err := unix.Openat(at, programFile, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o555)
	if err == nil {
		_, err = unix.Write(fd, program())
		_ = unix.Close(fd)
	}
	if err == nil {
		err = makeReadOnly(dir)
	}
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("make the program of placeholders: %w", err)
	}
	return dir, nil
}

// mountTmpfs makes a tmpfs that is mounted nowhere.
func mountTmpfs() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fs) }()
	for key, value := range map[string]string{"mode": "0555", "size": "64k"} {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return nil, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), programFile), nil
}
