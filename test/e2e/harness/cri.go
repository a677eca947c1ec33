//go:build e2e

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// pauseName is the image of pause containers.
	pauseName = "ccv2.test/pause:latest"
	// criNamespace is where containerd's CRI keeps its containers.
	criNamespace = "k8s.io"
	// cniPlugins is where the distribution puts them.
	cniPlugins = "/usr/lib/cni"
	// bridge stays as long as the daemon's network namespace.
	bridge = "ccv2e2e"
)

// CRI is a private containerd that serves pods, with a bridge network of its own.
type CRI struct {
	*Containerd

	Runtime runtimeapi.RuntimeServiceClient
	conn    *grpc.ClientConn
}

// network is a bridge with addresses of both families.
const network = `{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{
  "type": "bridge", "bridge": "` + bridge + `", "isGateway": true, "mtu": 1400,
  "ipam": {"type": "host-local", "dataDir": %q,
    "ranges": [[{"subnet": "10.99.0.0/16"}], [{"subnet": "fd99::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}`

// StartCRI starts a containerd for pods. The caller must Close it.
func StartCRI() (*CRI, error) { return StartCRIOf(Release{}) }

// StartCRIOf starts that of a release; none is the usual one.
func StartCRIOf(r Release) (*CRI, error) {
	h, err := NewHost()
	if err != nil {
		return nil, err
	}
	h.Namespace, h.groups = criNamespace, h.podGroup("*") // others may use the namespace
	if _, err := os.Stat(filepath.Join(cniPlugins, "bridge")); err != nil {
		return nil, errors.Join(fmt.Errorf("install containernetworking-plugins: %w", err), h.Close())
	}
	cni := filepath.Join(h.Dir, "cni")
	if err := os.Mkdir(cni, 0o700); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(network, filepath.Join(h.Dir, "ipam"))
	if err := os.WriteFile(filepath.Join(cni, "10-e2e.conflist"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	c := &CRI{Containerd: &Containerd{Host: h, release: r, cri: &criPaths{cni: cni, plugins: cniPlugins}}}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *CRI) open() (err error) {
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.start(); err != nil {
		return err
	}
	if err := c.importImage(); err != nil {
		return err
	}
	if err := c.importPause(); err != nil {
		return err
	}
	c.conn, err = grpc.NewClient("unix://"+c.socketPath(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: Patience, Backoff: backoff.Config{BaseDelay: interval, Multiplier: 1, MaxDelay: interval}}))
	if err != nil {
		return err
	}
	c.Runtime = runtimeapi.NewRuntimeServiceClient(c.conn)
	var last error
	if !within(Patience, func() bool { last = c.networkReady(); return last == nil }) {
		return fmt.Errorf("the CRI is not ready: %w", last)
	}
	return nil
}

// networkReady returns nil once pods can be run.
func (c *CRI) networkReady() error {
	status, err := c.Runtime.Status(context.Background(), &runtimeapi.StatusRequest{})
	if err != nil {
		return err
	}
	for _, condition := range status.GetStatus().GetConditions() {
		needed := condition.Type == runtimeapi.RuntimeReady || condition.Type == runtimeapi.NetworkReady
		if needed && !condition.Status {
			return fmt.Errorf("%s: %s", condition.Type, condition.Message)
		}
	}
	return nil
}

// importPause makes the image of pause containers: busybox that sleeps.
func (c *CRI) importPause() error {
	image, err := ociimage.Busybox(context.Background(), c.Busybox)
	if err != nil {
		return err
	}
	image.Name = pauseName
	image.Config = v1.ImageConfig{Entrypoint: []string{"/bin/sleep", "infinity"}}
	f, err := os.Create(filepath.Join(c.Dir, "pause.tar"))
	if err != nil {
		return err
	}
	if err := errors.Join(ociimage.Write(f, image), f.Close()); err != nil {
		return err
	}
	archive := c.Archive
	c.Archive = f.Name()
	defer func() { c.Archive = archive }()
	return c.importImage()
}

// Restart starts the daemon again after Kill and waits until it serves pods.
func (c *CRI) Restart(tb testing.TB) {
	tb.Helper()
	c.Containerd.Restart(tb)
	Until(tb, "the CRI serves again", func() bool { return c.networkReady() == nil })
}

// Upgrade starts another release after Kill and waits until it serves pods.
func (c *CRI) Upgrade(tb testing.TB, r Release) {
	tb.Helper()
	c.release = r
	c.Restart(tb)
}

// Close ends the daemon and removes everything.
func (c *CRI) Close() error {
	var err error
	if c.conn != nil {
		err = c.conn.Close()
	}
	return errors.Join(err, c.Containerd.Close())
}
