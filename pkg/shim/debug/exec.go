package debug

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
)

// Exec implements [debugapi.DebugService].
func (s *Service) Exec(context.Context, debugapi.Debug_ExecServer) error {
	return fmt.Errorf("exec in the vm: %w", errdefs.ErrNotImplemented)
}
