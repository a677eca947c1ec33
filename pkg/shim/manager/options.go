package manager

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ccv2/containerd-shim-ccv2/config"
)

// configFile holds, in the bundle, a configuration that containerd gave as text.
const configFile = "ccv2-config.toml"

// EnvShimCgroup tells the server, in its environment, which cgroup of the host it is
// to be in, which a client has made.
const EnvShimCgroup = "CCV2_SHIM_CGROUP"

// settings are what the runtime's options say.
type settings struct {
	config     string // path of the configuration, "" for the usual one
	shimCgroup string // "" for that of the sandbox
}

// env is the environment of the server.
func (s settings) env() []string {
	env := os.Environ()
	if s.config != "" {
		env = append(env, config.EnvPath+"="+s.config)
	}
	if s.shimCgroup != "" {
		env = append(env, EnvShimCgroup+"="+s.shimCgroup)
	}
	return env
}

// settingsOf reads the runtime's options. containerd sends its own options type for
// an options table of its configuration and for `ctr run --runtime-config-path`;
// clients that know runc alone send runc's.
func settingsOf(params *bootapi.BootstrapParams) (settings, error) {
	s, err := parseOptions(params)
	if err != nil {
		return settings{}, fmt.Errorf("runtime options: %w", err)
	}
	return s, nil
}

func parseOptions(params *bootapi.BootstrapParams) (settings, error) {
	var options runtimeoptions.Options
	found, err := params.FindExtension(&options)
	switch {
	case err != nil:
		return settings{}, err
	case found && options.ConfigPath != "":
		return settings{config: options.ConfigPath}, nil
	case found && len(options.ConfigBody) > 0:
		path, err := filepath.Abs(configFile)
		if err != nil {
			return settings{}, err
		}
		return settings{config: path}, os.WriteFile(path, options.ConfigBody, 0o600)
	case found:
		return settings{}, nil
	}
	var runc runcoptions.Options
	if found, err = params.FindExtension(&runc); err != nil {
		return settings{}, err
	}
	if found {
		return runcSettings(&runc)
	}
	for _, extension := range params.GetExtensions() {
		name := extension.GetValue().GetTypeUrl()
		if strings.HasSuffix(name, ".Options") {
			return settings{}, fmt.Errorf("those of type %s are for another runtime; this one takes config_path or a table of its own configuration: %w", name, errdefs.ErrInvalidArgument)
		}
	}
	return settings{}, nil
}

// runcSettings takes what of runc's options is true of this runtime, too. Others are
// refused by name, because ignoring them would run something else than what was
// asked for.
func runcSettings(o *runcoptions.Options) (settings, error) {
	s := settings{shimCgroup: o.GetShimCgroup()}
	o.IoUid, o.IoGid = 0, 0 // who owns the ends of the streams: in the guest that is so anyway
	o.ShimCgroup = ""
	var foreign []string
	o.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		foreign = append(foreign, string(field.Name()))
		return true
	})
	slices.Sort(foreign)
	if len(foreign) > 0 {
		return settings{}, fmt.Errorf("%s of %s are for another runtime; this one takes config_path or a table of its own configuration: %w",
			strings.Join(foreign, ", "), o.ProtoReflect().Descriptor().FullName(), errdefs.ErrInvalidArgument)
	}
	return s, nil
}
