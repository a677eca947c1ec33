package metrics

import "github.com/prometheus/client_golang/prometheus"

// podLabels name a pod. The sandbox is the begin of its id, as ccv2 ps has it.
var podLabels = []string{"namespace", "pod", "sandbox"}

func hostDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ccv2_"+name, help, labels, nil)
}

func podDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("ccv2_pod_"+name, help, append(append([]string{}, podLabels...), labels...), nil)
}

// Of the host: what is now, and sums since this process has started.
var (
	buildInfo       = hostDesc("build_info", "The release of this exporter.", "version")
	sandboxCount    = hostDesc("sandboxes", "Sandboxes on this host by state: those of ccv2 ps.", "state")
	podsOmitted     = hostDesc("pods_omitted", "Pods that have no metrics of their own, as there are more than --max-pods.")
	overheadDeclare = hostDesc("runtimeclass_overhead_memory_bytes", "What the RuntimeClass adds to a pod's memory, as --overhead says.")

	startsTotal    = hostDesc("sandbox_starts_total", "Starts of sandboxes that have ended, by where the VM came from: boot or template.", "source", "result")
	startSeconds   = hostDesc("sandbox_start_duration_seconds", "How long starts that have succeeded took.", "source")
	phaseSeconds   = hostDesc("sandbox_start_phase_duration_seconds", "How long each step of a start took.", "phase")
	phaseFailures  = hostDesc("sandbox_start_phase_failures_total", "Steps of starts that have failed.", "phase")
	failuresTotal  = hostDesc("sandbox_failures_total", "VMs that have ended though nobody wanted them to, or by an operator, by the cause.", "cause")
	callSeconds    = hostDesc("task_call_duration_seconds", "How long calls of containerd took; StartExec is the start of an exec process.", "operation")
	callFailures   = hostDesc("task_call_failures_total", "Calls of containerd that have failed, by the class of the error.", "operation", "code")
	eventsTotal    = hostDesc("sandbox_events_total", "Events of sandboxes: those of ccv2 events.", "kind")
	messagesTotal  = hostDesc("guest_messages_total", "Messages between host and guests, by kind.", "layer", "direction", "kind")
	messageBytes   = hostDesc("guest_message_bytes_total", "Bytes of these messages, with their headers.", "layer", "direction", "kind")
	scrapeDuration = hostDesc("scrape_duration_seconds", "How long it took to ask all shims for this scrape.")
)

// Of single pods.
var (
	podInfo         = podDesc("info", "What a pod's VM is.", "source", "accelerator")
	podUp           = podDesc("up", "Whether the shim of the pod has answered.")
	podHealthy      = podDesc("healthy", "Whether QEMU, virtiofsd and the guest's agent answer.")
	podHeartbeat    = podDesc("heartbeat_timestamp_seconds", "When all parts have answered last.")
	podCreated      = podDesc("created_timestamp_seconds", "When the sandbox was created.")
	podStart        = podDesc("start_duration_seconds", "How long its start took.")
	podVCPUs        = podDesc("vm_cpus", "vCPUs of the VM.")
	podVMMemory     = podDesc("vm_memory_bytes", "Memory of the VM.")
	podMemory       = podDesc("memory_bytes", "Memory of a process on the host, with its part of what it shares (PSS).", "process")
	podCPU          = podDesc("cpu_seconds_total", "Processor time of a process on the host.", "process")
	podGuestMemory  = podDesc("guest_memory_bytes", "Memory that the guest's kernel has, at the last heartbeat.")
	podGuestFree    = podDesc("guest_memory_available_bytes", "Of which it could give to programs.")
	podOverhead     = podDesc("memory_overhead_bytes", "What the processes on the host have, beside what the guest uses for others than its agent.")
	podShareBytes   = podDesc("virtiofs_bytes_total", "Bytes that the file server has read and written for the pod.", "operation")
	podShareCalls   = podDesc("virtiofs_operations_total", "System calls that the file server has read and written with.", "operation")
	podStreamBytes  = podDesc("stream_bytes_total", "Bytes of the streams of the pod's processes, with the headers of messages: input goes to the guest.", "stream")
	podMessages     = podDesc("messages_total", "Messages between host and guest.", "layer", "direction")
	podMessageBytes = podDesc("message_bytes_total", "Bytes of these messages, with their headers.", "layer", "direction")
	podOOM          = podDesc("oom_events_total", "Events of containers that were at their memory limit.")
)
