package kind

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// label is that of nodes on which a VM has booted; the RuntimeClass selects them.
const runtimeLabel = "ccv2.io/runtime"

// Tell tells the cluster that pods can run in VMs on the nodes: it applies the
// RuntimeClass that the tool has written below prefix, and labels them.
func (c *Cluster) Tell(ctx context.Context, prefix string) error {
	manifest, err := c.manifest(ctx, filepath.Join(prefix, "runtimeclass.yaml"))
	if err == nil {
		err = c.kubectl(ctx, manifest, c.out, "apply", "-f", "-")
	}
	for _, n := range c.nodes {
		if err == nil {
			err = c.label(ctx, n)
		}
	}
	if err != nil {
		return fmt.Errorf("it is installed, but cluster %s does not know it yet: %w; run it again", c.name, err)
	}
	return nil
}

var memory = regexp.MustCompile(`memory: (\d+)Mi`)

// manifest is that of the node where a VM needs the most.
func (c *Cluster) manifest(ctx context.Context, path string) (string, error) {
	most, text := -1, ""
	for _, n := range c.nodes {
		var out bytes.Buffer
		if err := c.run(ctx, n, "", &out, "cat", path); err != nil {
			return "", err
		}
		found := memory.FindStringSubmatch(out.String())
		if found == nil {
			return "", fmt.Errorf("node %s: %s has no overhead", n.name, path)
		}
		if mib, err := strconv.Atoi(found[1]); err != nil {
			return "", err
		} else if mib > most {
			most, text = mib, out.String()
		}
	}
	return text, nil
}

// kubectl runs it in a node of the control plane, which has one with its configuration.
func (c *Cluster) kubectl(ctx context.Context, stdin string, out io.Writer, args ...string) error {
	return c.run(ctx, c.api, stdin, out, append([]string{"kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"}, args...)...)
}

func (c *Cluster) label(ctx context.Context, n node) error {
	return c.kubectl(ctx, "", c.out, "label", "--overwrite", "node", n.name, runtimeLabel+"=true")
}

func (c *Cluster) unlabel(ctx context.Context, n node) error {
	return c.kubectl(ctx, "", c.out, "label", "node", n.name, runtimeLabel+"-")
}

func (c *Cluster) labelled(ctx context.Context, n node) (bool, error) {
	nodes, err := c.allLabelled(ctx)
	return slices.Contains(nodes, "node/"+n.name), err
}

func (c *Cluster) allLabelled(ctx context.Context) ([]string, error) {
	var out bytes.Buffer
	err := c.kubectl(ctx, "", &out, "get", "nodes", "-l", runtimeLabel+"=true", "-o", "name")
	return strings.Fields(out.String()), err
}

// forget deletes the RuntimeClass when no node has the runtime.
func (c *Cluster) forget(ctx context.Context) error {
	if nodes, err := c.allLabelled(ctx); err != nil || len(nodes) > 0 {
		return err
	}
	return c.kubectl(ctx, "", c.out, "delete", "runtimeclass", "ccv2", "--ignore-not-found")
}
