// Package socketpair makes two connected stream sockets, for two ends in one
// process that speak as over a Unix socket.
package socketpair
