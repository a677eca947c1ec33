package placeholder

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/osthread"
)

// Placeholder is one thread.
type Placeholder struct {
	pid  int
	end  chan struct{} // closed by Release
	done chan struct{} // closed when the thread is about to end
}

// New starts a placeholder in a network namespace, which stays the caller's.
// The caller must Release it.
func New(netns *os.File) (*Placeholder, error) {
	pid := make(chan int, 1)
	p := &Placeholder{end: make(chan struct{}), done: make(chan struct{})}
	err := osthread.GoInNetNS(netns, func() {
		defer close(p.done)
		pid <- unix.Gettid()
		<-p.end
	})
	if err != nil {
		return nil, fmt.Errorf("start the placeholder of a container: %w", err)
	}
	p.pid = <-pid
	return p, nil
}

// PID is the thread's id.
func (p *Placeholder) PID() int { return p.pid }

// Release ends the thread. It is called once.
func (p *Placeholder) Release() {
	close(p.end)
	<-p.done
}
