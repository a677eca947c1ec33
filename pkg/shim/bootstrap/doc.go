// Package bootstrap answers the start command of containerds before 2.3.
//
// containerd 2.3 and later write parameters to the standard input of a shim and
// read a message from its output; the shim framework knows that way alone. Earlier
// ones say the same with flags, write the runtime's options or nothing, and take
// an address:
//
//	containerd  input                       answer
//	1.6         options, or nothing         address
//	1.7         options, or nothing         address, or JSON up to version 2
//	2.0 – 2.2   options, or nothing         address, or JSON up to version 3
//	2.3 –       BootstrapParams             BootstrapResult
//
// All of the earlier ones get the address alone, for which each of them speaks version 2 of
// the task API. One answer keeps one way: with version 3, 2.0 to 2.2 would not ask
// for the address of a pod's further containers, which 1.6 and 1.7 always do.
//
// [Parse] tells the two apart; it has no state and starts nothing. The package must
// never know what a shim does once it was started.
package bootstrap
