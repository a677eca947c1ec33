// Package console keeps what a guest writes to its console: the last lines, made printable,
// since they end up in logs, in errors and on terminals.
//
// [Console.mu] is a leaf. The package has no goroutine, and must not know where the bytes come
// from.
package console
