// Package node is what a pod of the DaemonSet in deploy does on its node: it installs the
// bundle on the host that is mounted in it, sees to it that containerd knows of the runtime,
// has a VM booted with the host's files, and labels the node. It then waits, and does so
// again when containerd's configuration has lost the runtime. When the pod
// ends because the DaemonSet is deleted, it takes all of that away, as soon as no pod runs
// in a VM; when the pod ends for any other reason (an upgrade, a drain, a reboot) all stays,
// and pods in VMs go on.
package node
