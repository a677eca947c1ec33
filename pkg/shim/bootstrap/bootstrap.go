package bootstrap

import (
	"errors"
	"flag"
	"fmt"
	"io"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Command is the command line of a shim.
type Command struct {
	Namespace, ID string
	Address       string // of containerd
	Debug         bool
	Start         bool // whether it is the start command
}

// ParseArgs reads a command line, without the program's name. One that it does not
// understand is not a start command: the framework, which knows the flags too,
// says what is wrong with it.
func ParseArgs(args []string) Command {
	var c Command
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&c.Namespace, "namespace", "", "")
	flags.StringVar(&c.ID, "id", "", "")
	flags.StringVar(&c.Address, "address", "", "")
	flags.BoolVar(&c.Debug, "debug", false, "")
	other := false
	for _, name := range []string{"v", "version", "info"} {
		flags.BoolVar(&other, name, false, "")
	}
	for _, name := range []string{"publish-binary", "bundle", "socket", "debug-socket"} {
		flags.String(name, "", "")
	}
	if err := flags.Parse(args); err != nil || other {
		return Command{}
	}
	c.Start = flags.Arg(0) == "start"
	return c
}

// MaxInput is what the start command reads of its input at most, in bytes. It is
// the limit of the framework.
const MaxInput = 10 << 20

// Parse makes parameters of a start command of a containerd before 2.3. It returns
// nil when input has parameters already.
func Parse(c Command, ttrpcAddress string, input []byte) (*bootapi.BootstrapParams, error) {
	if c.Namespace == "" || c.ID == "" {
		return nil, fmt.Errorf("start command without -namespace or -id: %w", errdefs.ErrInvalidArgument)
	}
	var given bootapi.BootstrapParams
	if proto.Unmarshal(input, &given) == nil && given.GetInstanceID() == c.ID && given.GetNamespace() == c.Namespace {
		return nil, nil //nolint:nilnil // the documented answer
	}
	options, err := parseOptions(input)
	if err != nil {
		return nil, fmt.Errorf("read the input of the start command: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	p := &bootapi.BootstrapParams{
		InstanceID: c.ID, Namespace: c.Namespace,
		ContainerdGrpcAddress: c.Address, ContainerdTtrpcAddress: ttrpcAddress,
	}
	if c.Debug {
		p.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	if options != nil {
		p.Extensions = []*bootapi.Extension{{Value: options}}
	}
	return p, nil
}

// parseOptions returns the options of the runtime, nil when there are none.
// Parameters of another container have fields that options do not have.
func parseOptions(input []byte) (*anypb.Any, error) {
	if len(input) == 0 {
		return nil, nil //nolint:nilnil // as documented
	}
	var options anypb.Any
	if err := proto.Unmarshal(input, &options); err != nil {
		return nil, errors.New("it has neither parameters nor options of a runtime")
	}
	if len(options.ProtoReflect().GetUnknown()) > 0 {
		return nil, errors.New("its parameters are not those of this container")
	}
	return &options, nil
}
