// Package compatspec says what of a specification an original guest, whose commands
// know nothing of most of it, would silently not do. It is pure.
package compatspec
