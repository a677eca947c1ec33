// Package image builds the guest's kernel and initramfs from what a
// distribution ships: a kernel with its modules, an OCI runtime with the
// libraries that it links, and ccv2-agent as init.
//
// A build depends on its input files only: two builds of the same input give
// the same bytes. No step runs another program.
package image
