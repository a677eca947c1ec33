// Package outqueue is the queue that output of a process waits in: in the
// proxy, on its way to a client, and in the client, on its way to a consumer.
// Its buffers are pooled. It has no goroutines and no locks; the owner of a
// queue guards it.
package outqueue
