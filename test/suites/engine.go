package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
)

const engineSocket = "/run/docker.sock"

// engine is a dockerd on the containerd of the machine.
type engine struct {
	cmd *exec.Cmd
	log *os.File
}

// startEngine returns once dockerd listens.
func startEngine(ctx context.Context, o options, runtime string) (*engine, error) {
	log, err := os.Create(logPath(o.build, o.suite, runtime, "dockerd"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(o.build, dockerName, "dockerd"), "--containerd", socket, "--host", "unix://"+engineSocket,
		"--data-root", filepath.Join(o.scratch, dockerName), "--userland-proxy=false", "--init-path", "/usr/bin/tini-static")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	e := &engine{cmd: cmd, log: log}
	if err := listens(ctx, "dockerd", engineSocket, log.Name()); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// close ends it.
func (e *engine) close() {
	_ = e.cmd.Process.Signal(os.Interrupt)
	_ = e.cmd.Wait()
	_ = e.log.Close()
}
