// Package reclaim releases what a sandbox has acquired on the host, from its
// record alone (pkg/shim/store): in the shim when the sandbox ends, and in the
// delete command after the shim has died.
//
// It owns nothing, starts no goroutine and holds no lock: two reclaims of one
// sandbox at the same time both succeed. It never deletes below a mount, which
// is user data, and never touches the cgroup of a pod, which is the kubelet's.
// It must never know what the parts are for.
package reclaim
