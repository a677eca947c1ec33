package main

import (
	"context"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bootstrap"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
)

// starter finds or starts the shim of a container.
type starter interface {
	Start(context.Context, *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error)
}

// startLegacy runs the start command for a containerd before 2.3 and reports
// whether the command was one. Another command finds os.Stdin as it was.
func startLegacy(ctx context.Context, s starter, args []string, answer io.Writer) (bool, error) {
	command := bootstrap.ParseArgs(args)
	if !command.Start {
		return false, nil
	}
	input, err := io.ReadAll(io.LimitReader(os.Stdin, bootstrap.MaxInput))
	if err != nil {
		return true, fmt.Errorf("read the input of the start command: %w", err)
	}
	params, err := bootstrap.Parse(command, os.Getenv("TTRPC_ADDRESS"), input)
	if err != nil {
		return true, err
	}
	if params == nil {
		os.Stdin, err = fileWith(input)
		return err != nil, err
	}
	result, err := s.Start(namespaces.WithNamespace(ctx, params.GetNamespace()), params)
	if err != nil {
		return true, err
	}
	if err := bundle.SaveDialAddress(".", result.GetAddress()); err != nil {
		return true, fmt.Errorf("start shim: %w", err) // delete ends it
	}
	_, err = io.WriteString(answer, result.GetAddress())
	return true, err
}

// fileWith returns a file that is read from its begin, and is nowhere.
func fileWith(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("stdin", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("keep the input of the start command: %w", err)
	}
	f := os.NewFile(uintptr(fd), "stdin")
	if _, err := f.WriteAt(content, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("keep the input of the start command: %w", err)
	}
	return f, nil
}
