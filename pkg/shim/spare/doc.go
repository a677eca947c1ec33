// Package spare keeps VMs ready before there are pods for them: a few of a host's, that have
// gone on from a template, have run a container, and are paused until a shim takes one.
//
// A [Pool] is a directory with one of its own for each VM. Its name says what the VM is:
//
//	N.part                 is being made; N is a number that none had before
//	KEY.N                  ready; KEY is the template's
//	KEY.N.taken-PID-START  belongs to a shim, which moves it below its sandbox's directory
//
// A rename decides who has a VM. [Pool.Fill] makes them, one process at a time; the VMM
// outlives it, and is no child of the shim that takes it. The record in the directory names
// the VMM's process from its start on, so that whoever comes later can end it: [Pool.Sweep],
// or pkg/shim/reclaim once the directory is a sandbox's.
//
// One that no pod takes in time ends. The process that sees to it, one for each pool, is a shell
// that sleeps: nothing else of ccv2 need run on a host for it. It is in the VMs' cgroup, and who makes
// or removes VMs finds it there by the pool's name in its environment.
//
// Each VM has random numbers of its own, from its restore on, and gets others when it is
// taken. There was never a pod in one, and there will be one at most.
//
// There is no goroutine that outlives a call, and no lock but that of the pool's file.
package spare
