package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/ociruntime"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

func (s *containers) readFile(_ context.Context, payload []byte) ([]byte, error) {
	req, err := hyperstart.Decode[hyperstart.FileRequest](payload)
	if err != nil {
		return nil, err
	}
	f, err := s.openFile(req, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAnswer+1)) // the mux refuses what is too long
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.File, err)
	}
	return b, nil
}

func (s *containers) writeFile(_ context.Context, payload []byte) ([]byte, error) {
	req, content, err := hyperstart.ParseWriteFile(payload)
	if err != nil {
		return nil, err
	}
	f, err := s.openFile(req, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	return nil, errors.Join(err, f.Close())
}

// openFile opens a file as a container's processes see it, or one of the guest
// itself.
func (s *containers) openFile(req hyperstart.FileRequest, flags int) (*os.File, error) {
	if req.Container == "" {
		return ociruntime.OpenInRoot("/", req.File, flags)
	}
	c, err := s.find(req.Container)
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
