// Package beneath opens paths that must not lead out of a directory, with openat2(2).
package beneath
