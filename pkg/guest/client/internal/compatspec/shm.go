package compatspec

import (
	"math/bits"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// largeShm is the name of a feature.
	largeShm = "a /dev/shm of more than 64 MiB"
	// usualShm is the size, in bytes, that clients give a container without being asked.
	usualShm = 64 << 20
)

// asksLargeShm reports whether a container has a tmpfs at /dev/shm that is larger than usual. The size
// of the pod's, which is bound there, is asked for with the pod.
func asksLargeShm(a Ask) bool {
	return slices.ContainsFunc(a.Spec.Mounts, func(m specs.Mount) bool {
		return filepath.Clean(m.Destination) == "/dev/shm" && m.Type == "tmpfs" && slices.ContainsFunc(m.Options, isLarge)
	})
}

// isLarge reports whether an option of a tmpfs gives it more than the usual size, or one that depends on
// what there is. All of the guest's memory is what the shim says where nobody has asked.
func isLarge(option string) bool {
	size, ok := strings.CutPrefix(option, "size=")
	if !ok || size == "100%" {
		return strings.HasPrefix(option, "nr_blocks=")
	}
	number := strings.TrimRight(size, "kKmMgG")
	n, err := strconv.ParseUint(number, 10, 64)
	unit := map[string]int{"": 0, "k": 10, "m": 20, "g": 30}
	shift, known := unit[strings.ToLower(size[len(number):])]
	return err != nil || !known || bits.Len64(n)+shift > 64 || n<<shift > usualShm
}
