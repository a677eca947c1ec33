package manager

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// configFile holds, in the bundle, a configuration that containerd gave as text.
const configFile = "ccv2-config.toml"

// configOf returns the path of the configuration that the runtime's options
// name, "" when they name none. containerd sends its own options type for an
// options table of its configuration and for `ctr run --runtime-config-path`;
// the options of another runtime are refused, because ignoring them would run
// something else than what was asked for. Clients that know runc alone say with
// its options who owns the ends of the streams; in the guest that is so anyway.
func configOf(params *bootapi.BootstrapParams) (string, error) {
	var options runtimeoptions.Options
	found, err := params.FindExtension(&options)
	if err != nil {
		return "", fmt.Errorf("runtime options: %w", err)
	}
	switch {
	case found && options.ConfigPath != "":
		return options.ConfigPath, nil
	case found && len(options.ConfigBody) > 0:
		path, err := filepath.Abs(configFile)
		if err != nil {
			return "", fmt.Errorf("runtime options: %w", err)
		}
		if err := os.WriteFile(path, options.ConfigBody, 0o600); err != nil {
			return "", fmt.Errorf("runtime options: %w", err)
		}
		return path, nil
	case found:
		return "", nil
	}
	var runc runcoptions.Options
	found, err = params.FindExtension(&runc)
	if err != nil {
		return "", fmt.Errorf("runtime options: %w", err)
	}
	runc.IoUid, runc.IoGid = 0, 0
	if found && proto.Size(&runc) == 0 {
		return "", nil
	}
	for _, extension := range params.GetExtensions() {
		name := extension.GetValue().GetTypeUrl()
		if strings.HasSuffix(name, ".Options") {
			return "", fmt.Errorf("runtime options of type %s are for another runtime; this one takes config_path or a table of its own configuration: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	return "", nil
}
