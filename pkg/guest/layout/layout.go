package layout

// Names of the guest's devices. Guests that are older than ccv2 insist on them.
const (
	CtlPort  = "sh.hyper.channel.0" // virtio-serial port of the control messages
	TTYPort  = "sh.hyper.channel.1" // virtio-serial port of the standard streams
	ShareTag = "hyperShared"        // of the shared file system
)

// Paths in the image.
const (
	Init        = "/init" // the agent
	RuntimePath = "/usr/bin/crun"
	// ModuleList names the modules that the agent loads by itself, see [ModulesOf].
	ModuleList = "/etc/ccv2/modules"
	// ModuleTable has all modules of the image, in the form of package kmod.
	ModuleTable = "/etc/ccv2/modprobe"
	// ModprobePath is what the kernel executes when it needs a module.
	ModprobePath = "/sbin/modprobe"
)

// Paths in a guest that runs.
const (
	RunDir        = "/run/ccv2"               // the agent's own files
	ContainersDir = RunDir + "/containers"    // one directory per container: its bundle
	SharedDir     = RunDir + "/mounts"        // one directory per container: parts of the share
	RuntimeState  = RunDir + "/oci"           // the OCI runtime's own state
	CgroupRoot    = "/sys/fs/cgroup"          // where the agent mounts cgroup2
	CgroupBase    = CgroupRoot + "/ccv2"      // parent of the containers' cgroups
	PortClass     = "/sys/class/virtio-ports" // one directory per virtio-serial port
)
