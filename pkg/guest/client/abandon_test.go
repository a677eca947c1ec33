package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// slowGuest answers the first command of a code when release is closed, and all
// others at once.
func slowGuest(slow hyperstart.Code, release <-chan struct{}, status hyperstart.Code) reply {
	first := make(chan struct{}, 1)
	first <- struct{}{}
	return func(code hyperstart.Code, _ []byte) (hyperstart.Code, []byte) {
		if code != slow {
			return hyperstart.Ack, nil
		}
		select {
		case <-first:
			<-release
			return status, nil
		default:
			return hyperstart.Ack, nil
		}
	}
}

// abandonments are the ways in which a call ends before its command does.
var abandonments = map[string]struct {
	context func(context.Context) (context.Context, context.CancelFunc)
	want    error
}{
	"timeout": {context.WithCancel, context.DeadlineExceeded},
	"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		return ctx, cancel
	}, context.Canceled},
}

// TestAbandonedContainer: the guest creates it in the end. It is removed then,
// and does not block its id.
func TestAbandonedContainer(t *testing.T) {
	for name, tt := range abandonments {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				f := newFixture(t, hyperstart.DialectCCv2, slowGuest(hyperstart.NewContainer, release, hyperstart.Ack), client.Options{CallTimeout: 10 * time.Second}).start()
				ctx, cancel := tt.context(t.Context())
				defer cancel()
				c := client.Container{ID: "c", Spec: &specs.Spec{}}
				if err := f.CreateContainer(ctx, f.session(), c); !errors.Is(err, tt.want) {
					t.Errorf("error %v", err)
				}
				if err := f.Sync(t.Context()); err != nil {
					t.Error(err)
				}
				second := make(chan error, 1)
				go func() { second <- f.CreateContainer(t.Context(), f.session(), c) }()
				synctest.Wait()
				if got := len(f.sent(0)); got != 3 {
					t.Errorf("%d commands before the first one was answered: %s", got, f.sent(0))
				}
				close(release)
				if err := <-second; err != nil {
					t.Errorf("second container: %v", err)
				}
				checkCodes(t, f, "STARTPOD", "NEWCONTAINER", "PING", "REMOVECONTAINER", "NEWCONTAINER")
			})
		})
	}
}

// TestAbandonedContainerThatFails needs no removal.
func TestAbandonedContainerThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := newFixture(t, hyperstart.DialectCCv2, slowGuest(hyperstart.NewContainer, release, hyperstart.Error), client.Options{CallTimeout: 10 * time.Second}).start()
		c := client.Container{ID: "c", Spec: &specs.Spec{}}
		if err := f.CreateContainer(t.Context(), f.session(), c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(release)
		synctest.Wait()
		if err := f.CreateContainer(t.Context(), f.session(), c); err != nil {
			t.Error(err)
		}
		checkCodes(t, f, "STARTPOD", "NEWCONTAINER", "NEWCONTAINER")
	})
}

// TestAbandonedExec: the guest starts it in the end. It is killed then, and its
// id is free when it has exited.
func TestAbandonedExec(t *testing.T) {
	for name, tt := range abandonments {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				f := newFixture(t, hyperstart.DialectCCv2, slowGuest(hyperstart.ExecCmd, release, hyperstart.Ack), client.Options{CallTimeout: 10 * time.Second}).start()
				ctx, cancel := tt.context(t.Context())
				defer cancel()
				if err := f.Exec(ctx, f.session(), execOf("e")); !errors.Is(err, tt.want) {
					t.Errorf("error %v", err)
				}
				second := make(chan error, 1)
				go func() { second <- f.Exec(t.Context(), f.session(), execOf("e")) }()
				close(release)
				synctest.Wait()
				checkCodes(t, f, "STARTPOD", "EXECCMD", "SIGNALPROCESS")
				f.wire.Exit(3, 137)
				if err := <-second; err != nil {
					t.Errorf("second exec: %v", err)
				}
				checkCodes(t, f, "STARTPOD", "EXECCMD", "SIGNALPROCESS", "EXECCMD")
				if got := f.sent(2)[0]; got != `SIGNALPROCESS {"container":"c","process":"exec-e","signal":9}` {
					t.Errorf("the guest got %s", got)
				}
			})
		})
	}
}

// TestAbandonedExecWithoutSession: its id is free when the guest does not know
// of it any more.
func TestAbandonedExecWithoutSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		slow := slowGuest(hyperstart.ExecCmd, release, hyperstart.Ack)
		signals := 0
		guest := func(code hyperstart.Code, payload []byte) (hyperstart.Code, []byte) {
			if code != hyperstart.SignalProcess {
				return slow(code, payload)
			}
			if signals++; signals < 3 {
				return hyperstart.Ack, nil
			}
			return hyperstart.Error, []byte(`{"class":"not_found","message":"no such process"}`)
		}
		f := newFixture(t, hyperstart.DialectCCv2, guest, client.Options{CallTimeout: 10 * time.Second}).start()
		s := f.session()
		if err := f.Exec(t.Context(), s, execOf("e")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		_ = s.Close()
		close(release)
		if err := f.Exec(t.Context(), f.session(), execOf("e")); err != nil {
			t.Errorf("second exec: %v", err)
		}
		checkCodes(t, f, "STARTPOD", "EXECCMD", "SIGNALPROCESS", "SIGNALPROCESS", "SIGNALPROCESS", "EXECCMD")
	})
}

// TestAbandonedForward is reset.
func TestAbandonedForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := newFixture(t, hyperstart.DialectCCv2, slowGuest(hyperstart.ExecCmd, release, hyperstart.Ack), client.Options{CallTimeout: 10 * time.Second}).start()
		s := f.session()
		if err := f.Guest.(client.Forwarder).Forward(t.Context(), s, 80); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		_ = s.Close()
		close(release)
		synctest.Wait()
		if got := f.sent(2); !cmp.Equal(got, []string{`SIGNALPROCESS {"container":"pod","process":"forward-1","signal":9}`}) {
			t.Errorf("the guest got %s", got)
		}
	})
}

// TestAbandonedWithoutEnd: a guest that never answers neither keeps a second
// attempt for ever, nor Close.
func TestAbandonedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := newFixture(t, hyperstart.DialectCCv2, slowGuest(hyperstart.NewContainer, release, hyperstart.Ack), client.Options{CallTimeout: 10 * time.Second}).start()
		c := client.Container{ID: "c", Spec: &specs.Spec{}}
		for range 2 {
			if err := f.CreateContainer(t.Context(), f.session(), c); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		checkCodes(t, f, "STARTPOD", "NEWCONTAINER")
	})
}

// checkCodes compares the names of all commands so far.
func checkCodes(t *testing.T, f *fixture, want ...string) {
	t.Helper()
	f.wire.Mu.Lock()
	defer f.wire.Mu.Unlock()
	var got []string
	for _, c := range f.wire.Commands {
		got = append(got, c.Code.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}
