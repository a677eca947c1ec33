// Package rlimits has the limits of processes that a specification need not have: on a host
// a container inherits them from containerd, in a guest they would follow from its small memory.
//
// It has no state. It must not know how processes are started.
package rlimits
