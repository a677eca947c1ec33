// Package compatnet keeps the network of a pod for an original guest, which learns of
// interfaces and routes by STARTPOD alone, and turns it into what such a guest knows.
package compatnet
