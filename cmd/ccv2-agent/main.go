// Command ccv2-agent is PID 1 of the guest, without arguments. By the name of
// modprobe it is what the guest's kernel calls when it needs a module, by that of
// forward a connection to a port of the guest, and by that of receive it writes a
// program that an operator has sent.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/machine"
)

// version is set by the linker.
var version = "devel"

func main() {
	switch filepath.Base(os.Args[0]) {
	case "modprobe":
		os.Exit(machine.Modprobe(os.Args[1:]))
	case machine.ForwardName:
		os.Exit(machine.Forward(os.Args[1:]))
	case machine.ReceiveName:
		os.Exit(machine.Receive(os.Args[1:]))
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "ccv2-agent: this is the init of a ccv2 guest; it does nothing elsewhere")
		os.Exit(2)
	}
	agent.Main(context.Background(), agent.Config{Version: version})
}
