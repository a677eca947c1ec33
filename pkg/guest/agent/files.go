package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/commands"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// files is the commands about single files.
type files struct {
	find func(container string) (*container, error)
}

func (f files) readFile(_ context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.FileRequest](payload)
	if err != nil {
		return nil, err
	}
	file, err := f.openFile(req, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, commands.MaxAnswer+1)) // the mux refuses what is too long
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.File, err)
	}
	return b, nil
}

func (f files) writeFile(_ context.Context, payload []byte) ([]byte, error) {
	req, content, err := hyperstart.ParseWriteFile(payload)
	if err != nil {
		return nil, err
	}
	file, err := f.openFile(req, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(content)
	return nil, errors.Join(err, file.Close())
}

// openFile opens a file as a container's processes see it, or one of the guest
// itself.
func (f files) openFile(req hyperstart.FileRequest, flags int) (*os.File, error) {
	if req.Container == "" {
		return ociruntime.OpenInRoot("/", req.File, flags)
	}
	c, err := f.find(req.Container)
	if err != nil {
		return nil, err
	}
	p, err := c.process(hyperstart.InitProcess)
	if err != nil {
		return nil, err
	}
	if !p.alive() {
		return nil, hyperstart.Errorf(hyperstart.ClassFailedPrecondition, "container %s is %s", c.id, c.current())
	}
	return ociruntime.OpenInRoot(fmt.Sprintf("/proc/%d/root", p.child.PID), req.File, flags)
}
