package bundle

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/pkg/identifiers"
)

// Annotations of containerd's CRI implementation and of CRI-O.
const (
	annotationCPUQuota  = "io.kubernetes.cri.sandbox-cpu-quota"  // microseconds per period
	annotationCPUPeriod = "io.kubernetes.cri.sandbox-cpu-period" // microseconds
	annotationMemory    = "io.kubernetes.cri.sandbox-memory"     // bytes
)

var (
	// sandboxIDAnnotations name the sandbox that a container belongs to, the
	// first one that is there.
	sandboxIDAnnotations = []string{"io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"}
	podUIDAnnotations    = []string{"io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"}
	podNameAnnotations   = []string{"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"}
	podSpaceAnnotations  = []string{"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"}
	nameAnnotations      = []string{"io.kubernetes.cri.container-name", "io.kubernetes.container.name"}
	// typeAnnotations are "sandbox" for the pause container of a pod.
	typeAnnotations = []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"}
)

// SandboxID is the id of the sandbox that the container with the given id
// belongs to: the one that its annotations name, else its own.
func (b *Bundle) SandboxID(containerID string) (string, error) {
	for _, key := range sandboxIDAnnotations {
		if id := b.Spec.Annotations[key]; id != "" {
			// It becomes part of paths, and containerd has checked the container's alone.
			if err := identifiers.Validate(id); err != nil {
				return "", fmt.Errorf("read bundle: annotation %s: %w", key, err)
			}
			return id, nil
		}
	}
	return containerID, nil
}

// OfPod reports whether the annotations say that the container is one of a pod. Others
// say by the paths of namespaces which containers they belong to.
func (b *Bundle) OfPod() bool {
	for _, key := range slices.Concat(sandboxIDAnnotations, typeAnnotations) {
		if b.Spec.Annotations[key] != "" {
			return true
		}
	}
	return false
}

// PodUID is the uid of the pod that the container belongs to, "" for none. A
// kubelet has the pod's volumes in a directory of that name.
func (b *Bundle) PodUID() string {
	return b.annotation(podUIDAnnotations)
}

func (b *Bundle) podName() PodName {
	return PodName{Namespace: b.annotation(podSpaceAnnotations), Name: b.annotation(podNameAnnotations), UID: b.PodUID()}
}

// ContainerName is what the pod calls the container; "" for the pause container, and
// for one that is no pod's.
func (b *Bundle) ContainerName() string { return b.annotation(nameAnnotations) }

// annotation is the first of some that is there.
func (b *Bundle) annotation(keys []string) string {
	for _, key := range keys {
		if value := b.Spec.Annotations[key]; value != "" {
			return value
		}
	}
	return ""
}

// IsPodSandbox reports whether the bundle is that of a pod's pause container.
func (b *Bundle) IsPodSandbox() bool {
	for _, key := range typeAnnotations {
		if b.Spec.Annotations[key] == "sandbox" {
			return true
		}
	}
	return false
}

// Limits are what a pod may use; 0 is no limit.
type Limits struct {
	CPUQuota  int64  // microseconds per period
	CPUPeriod uint64 // microseconds
	Memory    int64  // bytes
}

// Limits are those of the pod, from the annotations of its pause container, or
// those of the container itself where there is no pod.
func (b *Bundle) Limits() Limits {
	if _, ok := b.Spec.Annotations[annotationMemory]; !ok {
		return b.ownLimits()
	}
	// Malformed numbers are as good as none: containerd writes them.
	quota, _ := strconv.ParseInt(b.Spec.Annotations[annotationCPUQuota], 10, 64)
	period, _ := strconv.ParseUint(b.Spec.Annotations[annotationCPUPeriod], 10, 64)
	memory, _ := strconv.ParseInt(b.Spec.Annotations[annotationMemory], 10, 64)
	return Limits{CPUQuota: quota, CPUPeriod: period, Memory: memory}
}

func (b *Bundle) ownLimits() Limits {
	var l Limits
	r := b.Spec.Linux.Resources
	if r == nil {
		return l
	}
	if r.CPU != nil && r.CPU.Quota != nil && r.CPU.Period != nil {
		l.CPUQuota, l.CPUPeriod = *r.CPU.Quota, *r.CPU.Period
	}
	if r.Memory != nil && r.Memory.Limit != nil {
		l.Memory = *r.Memory.Limit
	}
	return l
}
