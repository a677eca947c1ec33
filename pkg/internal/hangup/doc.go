// Package hangup notices that the other end of a socket was closed, for who carries out a
// command of a client and does not read meanwhile.
package hangup
