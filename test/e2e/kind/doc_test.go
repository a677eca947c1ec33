//go:build kind

// Package kind_test uses a real cluster as its users do: each row is what
// somebody applies and types, once with runc and once in a VM, and the two
// transcripts must be the same. hack/kind.sh makes the cluster.
package kind_test
