// Command pieces writes a file in small pieces and does meanwhile, by chance, what
// else is done with files. It knows what the file must have, and prints its sum.
//
// usage: pieces FILE SEED
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// file is one that is written, and what must be in it.
type file struct {
	*rand.Rand
	path     string
	writer   *os.File
	appender *os.File // another open file, since the writer is open
	at       int      // where the writer is
	has      []byte
}

func main() {
	seed, err := strconv.ParseUint(os.Args[2], 10, 64)
	f := &file{Rand: rand.New(rand.NewPCG(seed, 0)), path: os.Args[1]}
	for step := 0; err == nil && step < 950; step++ {
		if what, err2 := f.step(step); err2 != nil {
			err = fmt.Errorf("step %d, %s: %w", step, what, err2)
		}
	}
	if err == nil {
		err = f.writer.Close()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%x\n", sha256.Sum256(f.has))
}

// step does one thing.
func (f *file) step(n int) (what string, err error) {
	if f.writer == nil || n%300 == 299 {
		return "open", f.open()
	}
	switch chance := f.IntN(100); {
	case chance < 62:
		return "write", f.write(1 + f.IntN(6000))
	case chance < 64:
		return "write much", f.write(20_000 + f.IntN(50_000))
	case chance < 70:
		return "size", f.size()
	case chance < 78:
		return "read", f.read()
	case chance < 82:
		return "write elsewhere", f.elsewhere(os.O_WRONLY)
	case chance < 83:
		return "append by another", f.elsewhere(os.O_WRONLY | os.O_APPEND)
	case chance < 84:
		return "append by one that is open", f.appended()
	case chance < 86:
		return "truncate", f.truncate(f.IntN(len(f.has) + 5000))
	case chance < 90:
		f.at = len(f.has)
		_, err = f.writer.Seek(0, io.SeekEnd)
		return "seek", err
	case chance < 92:
		return "map", f.mapped()
	case chance < 93:
		return "link", f.link()
	case chance < 94:
		return "rename", errors.Join(os.Rename(f.path, f.path+"2"), os.Rename(f.path+"2", f.path))
	case chance < 96:
		return "times", f.times()
	case chance < 98:
		return "sync", f.writer.Sync()
	default:
		return "find the end", f.end()
	}
}

func (f *file) open() (err error) {
	if f.writer != nil {
		err = errors.Join(f.writer.Close(), f.appender.Close())
		if f.IntN(2) == 0 {
			err = errors.Join(err, os.Remove(f.path))
		}
	}
	if err == nil {
		f.writer, err = os.OpenFile(f.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	}
	if err == nil {
		f.appender, err = os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	}
	f.at, f.has = 0, nil
	return err
}

// appended writes at the end with a descriptor that was opened before what it follows was written.
func (f *file) appended() error {
	f.at = len(f.has)
	_, err := f.writer.Seek(0, io.SeekEnd)
	for range 3 {
		err = errors.Join(err, f.write(2000))
	}
	data := f.data(20_000)
	_, err2 := f.appender.Write(data)
	f.put(data, f.at)
	return errors.Join(err, err2)
}

// link gives the file a second name for a moment, by which it has all that was written.
func (f *file) link() error {
	f.at = len(f.has)
	_, err := f.writer.Seek(0, io.SeekEnd)
	for range 3 {
		err = errors.Join(err, f.write(2000))
	}
	if err = errors.Join(err, os.Link(f.path, f.path+"3")); err != nil {
		return err
	}
	got, err := os.ReadFile(f.path + "3")
	if err == nil && !bytes.Equal(got, f.has) {
		err = fmt.Errorf("%d bytes are not the %d that were written", len(got), len(f.has))
	}
	return errors.Join(err, os.Remove(f.path+"3"))
}

// put puts data into what the file has.
func (f *file) put(data []byte, at int) {
	if grow := at + len(data) - len(f.has); grow > 0 {
		f.has = append(f.has, make([]byte, grow)...)
	}
	copy(f.has[at:], data)
}

func (f *file) data(size int) []byte {
	return bytes.Repeat([]byte{byte(1 + f.IntN(255))}, size)
}

func (f *file) write(size int) error {
	data := f.data(size)
	_, err := f.writer.Write(data)
	f.put(data, f.at)
	f.at += size
	return err
}

func (f *file) size() error {
	byName, err := os.Stat(f.path)
	opened, err2 := f.writer.Stat()
	if err = errors.Join(err, err2); err == nil && (byName.Size() != int64(len(f.has)) || opened.Size() != byName.Size()) {
		err = fmt.Errorf("is %d and %d, want %d", byName.Size(), opened.Size(), len(f.has))
	}
	return err
}

func (f *file) read() error {
	got, err := os.ReadFile(f.path)
	if err == nil && !bytes.Equal(got, f.has) {
		err = fmt.Errorf("%d bytes are not the %d that were written", len(got), len(f.has))
	}
	return err
}

// elsewhere writes with another descriptor.
func (f *file) elsewhere(flags int) error {
	other, err := os.OpenFile(f.path, flags, 0)
	if err != nil {
		return err
	}
	data, at := f.data(1+f.IntN(9000)), f.IntN(len(f.has)+1)
	if flags&os.O_APPEND != 0 {
		at = len(f.has)
	}
	if _, err = other.Seek(int64(at), io.SeekStart); err == nil {
		_, err = other.Write(data)
	}
	f.put(data, at)
	return errors.Join(err, other.Close())
}

func (f *file) truncate(size int) error {
	if size <= len(f.has) {
		f.has = f.has[:size:size]
	} else {
		f.put(nil, size)
	}
	return os.Truncate(f.path, int64(size))
}

// mapped changes a byte in a mapping.
func (f *file) mapped() error {
	if len(f.has) == 0 {
		return nil
	}
	other, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(int(other.Fd()), 0, len(f.has), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		if !bytes.Equal(memory, f.has) {
			err = errors.New("the mapping is not what was written")
		}
		at := f.IntN(len(memory))
		memory[at], f.has[at] = 'm', 'm'
		err = errors.Join(err, unix.Munmap(memory))
	}
	return errors.Join(err, other.Close())
}

// times sets the time of the last write: it must be what it is then.
func (f *file) times() error {
	want := time.Unix(int64(f.IntN(1<<30)), 0)
	if err := os.Chtimes(f.path, want, want); err != nil {
		return err
	}
	info, err := os.Stat(f.path)
	if err == nil && !info.ModTime().Equal(want) {
		err = fmt.Errorf("%v instead of %v", info.ModTime(), want)
	}
	return err
}

// end asks where the file's last hole is, which is its end when the rest is data.
func (f *file) end() error {
	if len(f.has) == 0 {
		return nil
	}
	end, err := unix.Seek(int(f.writer.Fd()), int64(len(f.has)-1), unix.SEEK_HOLE)
	if err == nil && end != int64(len(f.has)) && end != int64(len(f.has)-1) {
		err = fmt.Errorf("is %d, want %d", end, len(f.has))
	}
	_, err2 := f.writer.Seek(int64(f.at), io.SeekStart)
	return errors.Join(err, err2)
}
