package debug

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/ccv2/containerd-shim-ccv2/pkg/printable"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// LogLevel answers the request of that name.
func (s *Service) LogLevel(_ context.Context, r *debugapi.LogLevelRequest) (*debugapi.LogLevelReply, error) {
	before := log.GetLevel().String()
	level := printable.Line(r.GetLevel(), printable.MaxName)
	if level == "" {
		return &debugapi.LogLevelReply{Before: before}, nil
	}
	switch strings.ToLower(level) {
	case "fatal", "panic": // the library has them as well; they would hide the errors
		return nil, wrongLevel(level)
	}
	if err := log.SetLevel(level); err != nil {
		return nil, wrongLevel(level)
	}
	s.opts.History.Note("log-level", fmt.Sprintf("%s, was %s, asked for by %s", level, before, printable.Line(r.GetBy(), printable.MaxName)))
	return &debugapi.LogLevelReply{Before: before}, nil
}

func wrongLevel(level string) error {
	return fmt.Errorf("set the log level to %q: want trace, debug, info, warn or error: %w", level, errdefs.ErrInvalidArgument)
}
