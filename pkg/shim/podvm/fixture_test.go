package podvm

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
	"github.com/ccv2/containerd-shim-ccv2/pkg/hypervisor/fake"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/bundle"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

func TestMain(m *testing.M) {
	log.L.Logger.SetOutput(io.Discard) // losses are what the tests are about
	goleak.VerifyTestMain(m)
}

// fixture is a machine whose VMM is a process that does nothing, and whose guest
// is an agent in this process.
type fixture struct {
	t      *testing.T
	agent  *agent
	driver *fake.Driver
	opts   Options
	*Machine
}

// newFixture makes a machine. When the test ends everything must have been
// released.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	dir, err := os.MkdirTemp("", "ccv2-podvm-") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, agent: &agent{t: t, ignore: make(map[hyperstart.Code]bool)}}
	f.driver = &fake.Driver{Guest: f.agent.run}
	f.opts = Options{
		Namespace: "test", ID: "pod", StateDir: filepath.Join(dir, "run"), Source: Cold{Driver: f.driver},
		Config: Config{ShareType: "9p", BootTimeout: 10 * time.Second, CallTimeout: 5 * time.Second},
	}
	f.Machine = New(f.opts)
	t.Cleanup(func() { f.close(dir) })
	return f
}

// with makes the machine with other options.
func (f *fixture) with(change func(*Options)) {
	change(&f.opts)
	f.Machine = New(f.opts)
}

// boot boots the machine for a pod.
func (f *fixture) boot(pod bundle.Pod) error { return f.Boot(f.t.Context(), pod, client.Events{}) }

// record is what is on disk.
func (f *fixture) record() store.Dir {
	return store.DirOf(f.opts.StateDir, f.opts.Namespace, f.opts.ID)
}

// close releases the machine and looks at what is left of it.
func (f *fixture) close(dir string) {
	f.t.Helper()
	f.Kill(context.Background(), errors.New("the test is over"))
	for range 2 { // doing it again is not an error
		if err := f.Release(context.Background()); err != nil {
			f.t.Error(err)
		}
	}
	if vm := f.driver.Last(); vm != nil {
		select {
		case <-vm.Done():
		default:
			f.t.Error("the vm still runs")
		}
	}
	f.driver.Close()
	f.agent.wg.Wait()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		f.t.Error(err)
	}
	for _, m := range mounts {
		f.t.Errorf("%s is still mounted", m.Mountpoint)
	}
	if _, err := os.Stat(f.Dir()); !errors.Is(err, os.ErrNotExist) {
		f.t.Errorf("the sandbox's directory is still there: %v", err)
	}
	if len(mounts) == 0 {
		_ = os.RemoveAll(dir)
	}
}
