package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Cluster is a cluster with those of its nodes that are worked on.
type Cluster struct {
	engine engine
	name   string
	nodes  []node
	api    node // one of the control plane
	out    io.Writer
}

// Open finds the nodes of a cluster: all, or those with the given names. All that can be
// checked is checked: that they run and are privileged, and that a node of the control
// plane runs. What the tool in the nodes says goes to out.
func Open(ctx context.Context, cluster string, names []string, out io.Writer) (*Cluster, error) {
	e, err := openEngine()
	if err != nil {
		return nil, err
	}
	return open(ctx, e, cluster, names, out)
}

func open(ctx context.Context, e engine, cluster string, names []string, out io.Writer) (*Cluster, error) {
	all, err := e.nodes(ctx)
	if err != nil {
		return nil, err
	}
	all, err = ofCluster(all, cluster)
	if err != nil {
		return nil, err
	}
	c := &Cluster{engine: e, name: cluster, out: out}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(n node) bool { return n.name == name }) {
			return nil, fmt.Errorf("cluster %s has no node %s, its nodes are %s; nothing was changed", cluster, name, namesOf(all))
		}
	}
	for _, n := range all {
		if n.role == controlPlane && n.state == running && c.api.id == "" {
			c.api = n
		}
		if len(names) > 0 && !slices.Contains(names, n.name) {
			continue
		}
		if err := check(ctx, e, n); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	if c.api.id == "" {
		return nil, fmt.Errorf("no node of the control plane of cluster %s runs; start one of %s; nothing was changed", cluster, namesOf(all))
	}
	return c, nil
}

const running = "running"

// ofCluster are the nodes of one cluster.
func ofCluster(all []node, cluster string) ([]node, error) {
	var mine []node
	var others []string
	for _, n := range all {
		switch {
		case n.cluster != cluster:
			others = append(others, n.cluster)
		case n.role == controlPlane || n.role == worker:
			mine = append(mine, n)
		}
	}
	if len(mine) > 0 {
		slices.SortFunc(mine, func(a, b node) int { return strings.Compare(a.name, b.name) })
		return mine, nil
	}
	if len(others) == 0 {
		return nil, fmt.Errorf("the engine has no kind cluster %q, and no other one; DOCKER_HOST names another engine", cluster)
	}
	slices.Sort(others)
	return nil, fmt.Errorf("the engine has no kind cluster %q; it has %s", cluster, strings.Join(slices.Compact(others), ", "))
}

func namesOf(nodes []node) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.name
	}
	return strings.Join(names, ", ")
}

// check checks that a node can be worked on. That a VM boots in it is seen there.
func check(ctx context.Context, e engine, n node) error {
	if n.state != running {
		return fmt.Errorf("node %s is %s; start it (docker start %s), or name others with -nodes; nothing was changed", n.name, n.state, n.name)
	}
	privileged, err := e.privileged(ctx, n)
	if err == nil && !privileged {
		err = fmt.Errorf("node %s is a container without -privileged: a VM in it would have no /dev/kvm and no /dev/net/tun; nothing was changed", n.name)
	}
	return err
}

// Install installs an unpacked bundle, or upgrades to it, as command says; args are more
// arguments of the tool in the node.
func (c *Cluster) Install(ctx context.Context, bundle, command string, args []string) error {
	files, err := bundleFiles(bundle)
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	for i, n := range c.nodes {
		if err := c.tool(ctx, n, files, append([]string{command}, args...)...); err != nil {
			if i > 0 {
				err = fmt.Errorf("%w; done are %s: run it again", err, namesOf(c.nodes[:i]))
			}
			return err
		}
	}
	return nil
}

// Uninstall takes away what was installed below prefix, with the label before that: no pod is
// to come meanwhile. A node that keeps it because of pods that run gets its label again; one
// that has nothing is done, as after an interruption.
func (c *Cluster) Uninstall(ctx context.Context, prefix string, args []string, dry bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files := map[string]string{"bin/ccv2": self}
	some := false
	for _, n := range c.nodes {
		installed, err := c.installed(ctx, n, prefix)
		if err != nil {
			return err
		}
		if !installed {
			fmt.Fprintf(c.out, "%s: nothing is installed in %s\n", n.name, prefix)
			if !dry {
				err = c.unstage(ctx, n)
			}
			if err != nil {
				return err
			}
			continue
		}
		some = true
		if dry {
			err = c.tool(ctx, n, files, append([]string{"uninstall"}, args...)...)
		} else {
			err = c.uninstall(ctx, n, files, args)
		}
		if err != nil {
			return err
		}
	}
	if !dry {
		err = c.forget(ctx)
	}
	if err == nil && !some {
		err = fmt.Errorf("nothing is installed in %s on %s; -prefix names another place", prefix, namesOf(c.nodes))
	}
	return err
}

// uninstall does it on one node.
func (c *Cluster) uninstall(ctx context.Context, n node, files map[string]string, args []string) error {
	labelled, err := c.labelled(ctx, n)
	if err != nil {
		return err
	}
	if err := c.unlabel(ctx, n); err != nil {
		return err
	}
	err = c.tool(ctx, n, files, append([]string{"uninstall"}, args...)...)
	if err != nil && labelled {
		err = errors.Join(err, c.label(context.WithoutCancel(ctx), n))
	}
	return err
}

// installed reports whether a node has a record of an installation below prefix.
func (c *Cluster) installed(ctx context.Context, n node, prefix string) (bool, error) {
	const cannotRun = 126 // and 127: what a shell and the engine say of a program
	err := c.engine.run(ctx, n, "", io.Discard, io.Discard, "ls", "-d", filepath.Join(prefix, "installed.json"))
	if exit, ok := errors.AsType[*exitError](err); ok && exit.status < cannotRun {
		return false, nil
	}
	if err != nil {
		err = fmt.Errorf("node %s: %w", n.name, err)
	}
	return err == nil, err
}

// tool copies files into a node, runs the tool that is one of them, and removes them.
func (c *Cluster) tool(ctx context.Context, n node, files map[string]string, args ...string) (err error) {
	if err := c.unstage(ctx, n); err != nil {
		return err
	}
	defer func() {
		const limit = time.Minute
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		err = errors.Join(err, c.unstage(ctx, n))
	}()
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(write(w, files)) }() // the reader gets the error
	err = c.engine.unpack(ctx, n, r)
	_ = r.Close() // which ends the writer
	if err != nil {
		return fmt.Errorf("node %s: copy into it: %w", n.name, err)
	}
	out := &lines{to: c.out, prefix: n.name + ": "}
	defer out.end()
	return c.run(ctx, n, "", out, append([]string{staged + "/bin/ccv2"}, args...)...)
}

// unstage removes what was copied into a node, also what an interruption has left.
func (c *Cluster) unstage(ctx context.Context, n node) error {
	return c.run(ctx, n, "", io.Discard, "rm", "-rf", staged)
}

// run runs a command in a node. What it says on stderr is part of the error.
func (c *Cluster) run(ctx context.Context, n node, stdin string, out io.Writer, command ...string) error {
	var said bytes.Buffer
	err := c.engine.run(ctx, n, stdin, out, &said, command...)
	var exit *exitError
	switch text := strings.TrimSpace(said.String()); {
	case err == nil && text != "":
		fmt.Fprintf(c.out, "%s: %s\n", n.name, text)
	case errors.As(err, &exit) && text != "":
		err = fmt.Errorf("node %s: %s", n.name, text)
	case err != nil:
		err = fmt.Errorf("node %s: %w", n.name, err)
	}
	return err
}

// lines puts a prefix before each line.
type lines struct {
	to     io.Writer
	prefix string
	rest   []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if _, err := fmt.Fprintf(l.to, "%s%s\n", l.prefix, line); err != nil {
			return 0, err
		}
		l.rest = rest
	}
}

// end writes a last line without an end.
func (l *lines) end() {
	if len(l.rest) > 0 {
		fmt.Fprintf(l.to, "%s%s\n", l.prefix, l.rest)
	}
}
