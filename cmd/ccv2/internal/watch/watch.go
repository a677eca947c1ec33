package watch

import (
	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
)

// tool is what the commands have in common.
type tool struct{ *operator.Operator }

// Commands are those of this package.
func Commands(o *operator.Operator) []*cli.Command {
	t := &tool{o}
	return []*cli.Command{consoleCommand(t), eventsCommand(t), metricsCommand(t), traceCommand(t), decodeCommand(t)}
}
