// Package guestclock keeps the clock of a guest on the host's time.
//
// A VM has the time of its boot, and its clock stands still while its vCPUs do: in
// a pause, and while the host sleeps. Nothing tells the guest, and not every host
// has what a guest could ask (ptp_kvm needs KVM). So the host asks the guest: what
// it answers was read at some instant between question and answer, and the
// shortest of several round trips bounds how wrong the difference can be. What is
// certainly wrong is corrected by that difference, so that it does not matter how
// long the correction takes to arrive.
//
// A [Keeper] has one goroutine, which alone speaks to the guest: when it is asked
// to, after a start of the vCPUs, and every [Interval]. It ends with Close, which
// joins it. There is no lock.
//
// The package must never know why the vCPUs stood still, or what runs in the guest.
package guestclock
