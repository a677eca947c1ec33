// Package sharelimit keeps what a guest has in mind of the host's files below what
// the server of the share can hold open.
//
// The server has a descriptor for each inode that the guest's kernel remembers, and
// the kernel forgets only when its memory is short. Left alone, a walk over many files
// takes all descriptors, and then no file of the pod can be looked up. So the count
// is looked at, and from half of the limit on, or from a hundred thousand, the guest is
// asked to forget what nobody uses: first files without data in memory, then, where
// that is not enough, all.
//
// How soon the count is looked at again follows from how far it is from the mark and
// from how fast a server opens files, so that a server with a usual limit, of hundreds
// of thousands, is looked at once a second. What containers have open cannot be
// forgotten: the mark then moves up, halfway to the limit at most.
//
// A [Watch] has one goroutine, which alone speaks to the guest. It ends with Close,
// which joins it, and by itself with the server. There is no lock.
//
// The package must never know which server it is, or whose files these are.
package sharelimit
