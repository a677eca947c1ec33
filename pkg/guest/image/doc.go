// Package image builds the guest's kernel and initramfs from what a
// distribution ships: a kernel with its modules, an OCI runtime with the
// libraries that it links, and ccv2-agent as init.
//
// It owns the form of the image: which modules it has and in which phase they are
// loaded, the skeleton of the root file system, and the manifest. What image and
// agent must agree on is in package layout, the module table in package kmod.
//
// A build depends on its input files only: two builds of the same input give
// the same bytes. Of other programs only xz is run, where the input has that
// compression.
//
// It has no state, no goroutine and no lock. It must never know how the image is
// booted, and the agent must never import it, with its decompressors.
package image
