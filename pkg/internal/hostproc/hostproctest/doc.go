// Package hostproctest starts processes for tests of what ends them.
package hostproctest
