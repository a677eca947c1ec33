package agent

import (
	"encoding/json"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// decode parses a payload. Unknown keys are ignored, so that a newer host can
// add some.
func decode[T any](payload []byte) (T, error) {
	var v T
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, hyperstart.Errorf(hyperstart.ClassInvalidArgument, "decode payload: %w", err)
	}
	return v, nil
}
