package kind

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// What kind writes on the containers of its nodes.
const (
	clusterLabel = "io.x-k8s.kind.cluster"
	roleLabel    = "io.x-k8s.kind.role"
)

// Roles of nodes; an external load balancer is none, and runs no containerd.
const (
	controlPlane = "control-plane"
	worker       = "worker"
)

// node is a container that is a node of a cluster. Its name is that of the node in the
// cluster.
type node struct {
	id, name, cluster, role, state string
}

// engine is what is asked of the engine.
type engine interface {
	// nodes are those of all clusters.
	nodes(ctx context.Context) ([]node, error)
	// privileged reports whether a node may do all that root may, and sees all devices.
	privileged(ctx context.Context, n node) (bool, error)
	// unpack unpacks an archive in the root directory of a node.
	unpack(ctx context.Context, n node, archive io.Reader) error
	// run runs a command in a node. A command that fails is an *exitError.
	run(ctx context.Context, n node, stdin string, stdout, stderr io.Writer, command ...string) error
}

// exitError is the exit status of a command in a node.
type exitError struct {
	command string
	status  int
}

func (e *exitError) Error() string {
	return fmt.Sprintf("%s ended with status %d", e.command, e.status)
}

// docker is the engine behind DOCKER_HOST, or behind the socket where it is by default.
type docker struct{ client *client.Client }

func openEngine() (*docker, error) {
	if host := os.Getenv(client.EnvOverrideHost); strings.HasPrefix(host, "ssh://") {
		return nil, fmt.Errorf("DOCKER_HOST=%s needs the client of Docker: forward the engine's socket "+
			"(ssh -NL /tmp/docker.sock:/var/run/docker.sock …), and name that; nothing was changed", host)
	}
	c, err := client.New(client.FromEnv)
	if err != nil {
		return nil, fmt.Errorf("settings of the engine (DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH): %w", err)
	}
	return &docker{client: c}, nil
}

func (d *docker) nodes(ctx context.Context) ([]node, error) {
	list, err := d.client.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", clusterLabel)})
	if client.IsErrConnectionFailed(err) {
		return nil, fmt.Errorf("%w; start it, or name its socket in DOCKER_HOST", err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the engine at %s for containers: %w", d.client.DaemonHost(), err)
	}
	nodes := make([]node, 0, len(list.Items))
	for _, c := range list.Items {
		if len(c.Names) == 0 {
			continue // it is being removed
		}
		nodes = append(nodes, node{
			id: c.ID, name: strings.TrimPrefix(c.Names[0], "/"), cluster: c.Labels[clusterLabel], role: c.Labels[roleLabel], state: string(c.State),
		})
	}
	return nodes, nil
}

func (d *docker) privileged(ctx context.Context, n node) (bool, error) {
	got, err := d.client.ContainerInspect(ctx, n.id, client.ContainerInspectOptions{})
	if err != nil {
		return false, fmt.Errorf("ask the engine for node %s: %w", n.name, err)
	}
	return got.Container.HostConfig != nil && got.Container.HostConfig.Privileged, nil
}

func (d *docker) unpack(ctx context.Context, n node, archive io.Reader) error {
	_, err := d.client.CopyToContainer(ctx, n.id, client.CopyToContainerOptions{DestinationPath: "/", Content: archive})
	return err
}

func (d *docker) run(ctx context.Context, n node, stdin string, stdout, stderr io.Writer, command ...string) error {
	process, err := d.client.ExecCreate(ctx, n.id, client.ExecCreateOptions{
		Cmd: command, AttachStdin: stdin != "", AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return err
	}
	streams, err := d.client.ExecAttach(ctx, process.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer streams.Close()
	defer context.AfterFunc(ctx, streams.Close)()
	if stdin != "" {
		if _, err := io.WriteString(streams.Conn, stdin); err != nil {
			return err
		}
		if err := streams.CloseWrite(); err != nil {
			return err
		}
	}
	if _, err := stdcopy.StdCopy(stdout, stderr, streams.Reader); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("output of %s: %w", command[0], err))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	status, err := d.status(ctx, process.ID)
	if err == nil && status != 0 {
		err = &exitError{command: command[0], status: status}
	}
	return err
}

// status waits for the end of a process, which the engine may hear of after the end of its
// output. There is no call that waits.
func (d *docker) status(ctx context.Context, id string) (int, error) {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		got, err := d.client.ExecInspect(ctx, id, client.ExecInspectOptions{})
		if err != nil || !got.Running {
			return got.ExitCode, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
