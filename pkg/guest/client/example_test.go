package client_test

import (
	"context"
	"fmt"
	"net"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/client"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/guesttest"
)

// A container from its creation to its removal. The guest is one in memory; a
// real one comes from Dial.
func Example() {
	var guest client.Guest = guesttest.New(guesttest.Options{})
	if err := run(context.Background(), guest, "say", "hello\n"); err != nil {
		fmt.Println(err)
	}
	// Output:
	// hello
	// exit status 0
}

func run(ctx context.Context, guest client.Guest, args ...string) error {
	session, err := guest.OpenSession(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }()
	err = guest.CreateContainer(ctx, session, client.Container{
		ID: "c", Spec: &specs.Spec{Process: &specs.Process{Args: args}},
	})
	if err != nil {
		return err
	}
	if err := guest.StartContainer(ctx, "c"); err != nil {
		return err
	}
	go session.Stderr().Discard()
	if _, err := session.Stdout().WriteTo(os.Stdout); err != nil {
		return err
	}
	<-session.Done()
	status, err := session.Exit()
	if err != nil {
		return err
	}
	fmt.Println("exit status", status)
	return guest.RemoveContainer(ctx, "c")
}

// A tool of an operator asks a guest about itself through the proxy socket of
// its sandbox.
func ExampleFrames() {
	frames := client.NewFrames("pod", func() (net.Conn, error) { return net.Dial("unix", "/run/ccv2/default/pod/vm/proxy.sock") })
	info, err := frames.Hyper(context.Background(), "guestinfo", "", nil)
	fmt.Println(string(info), err)
}
