// Package jsonfile reads and atomically replaces small JSON files: the records
// of a sandbox and what the shim leaves in a bundle.
package jsonfile
