// Package guestspec turns the OCI specification that containerd wrote for the
// host into the one that the guest's OCI runtime gets.
//
// It is pure: no input is changed, no file is read and nothing is started, so
// that every rule is a row of a table in its tests. What has to be looked up or
// mounted first, the caller passes in as values ([Options]). It knows nothing of
// the guest's protocol, of the VM and of how files get into the share.
package guestspec
