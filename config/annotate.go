package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// AnnotationPrefix precedes the keys of this file in annotations.
const AnnotationPrefix = "io.ccv2."

// settable are the keys that an annotation may set. Keys that name files or
// programs of the host are not among them, whatever the file allows.
var settable = []string{
	"vm.vcpus",
	"vm.memory_mib",
	"hypervisor.machine",
	"hypervisor.accelerator",
	"guest.kernel_args",
	"guest.boot_timeout",
	"guest.call_timeout",
	"guest.console",
	"template.enabled",
	"health.end_after",
}

// annotationKey returns the key that an annotation of ours may set.
func annotationKey(name string) (key string, ok bool) {
	key, ok = strings.CutPrefix(name, AnnotationPrefix)
	return key, ok && slices.Contains(settable, key)
}

// annotate applies the annotations that the file allows. One that it does not
// allow is an error: ignoring it would start another VM than the one asked for.
func (l *loader) annotate(annotations map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if !strings.HasPrefix(name, AnnotationPrefix) {
			continue
		}
		key, ok := annotationKey(name)
		switch {
		case !ok:
			l.errs = append(l.errs, fmt.Errorf("annotation %s: there is no such key, or it cannot be set by a container", name))
		case !slices.Contains(l.config.Annotations.Allow, name):
			l.errs = append(l.errs, fmt.Errorf("annotation %s: is not allowed; add it to annotations.allow", name))
		default:
			if err := setText(l.fields[key], annotations[name]); err != nil {
				l.errs = append(l.errs, fmt.Errorf("annotation %s: %w", name, err))
				continue
			}
			l.origin[key] = "annotation " + name
		}
	}
}
