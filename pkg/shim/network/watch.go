package network

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchGroups are the kernel's announcements that can change a [Snapshot].
const watchGroups = unix.RTMGRP_LINK | unix.RTMGRP_NEIGH |
	unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE

// quietTime is how long nothing may change before a change is reported: a CNI
// plugin makes a link, addresses and routes one after the other.
const quietTime = 30 * time.Millisecond

// maxQuietWait bounds that where something changes all the time.
const maxQuietWait = time.Second

// Watcher reports that something in a namespace has changed. What exactly does
// not matter: a new scan finds it.
type Watcher struct{ sock *os.File }

// Watch begins to watch. A scan that follows misses nothing.
func (n *Namespace) Watch() (*Watcher, error) {
	var fd int
	err := n.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch network namespace %s: %w", n.name(), err)
	}
	sock := os.NewFile(uintptr(fd), "netlink")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: watchGroups}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch network namespace %s: %w", n.name(), err), sock.Close())
	}
	return &Watcher{sock: sock}, nil
}

// Wait returns when something has changed and is quiet again, or after limit, when
// that is not 0. After Close it fails.
func (w *Watcher) Wait(limit time.Duration) error {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	if err := w.read(deadline); err != nil {
		return ignoreTimeout(err)
	}
	end := time.Now().Add(maxQuietWait)
	for time.Now().Before(end) {
		if err := w.read(time.Now().Add(quietTime)); err != nil {
			return ignoreTimeout(err)
		}
	}
	return nil
}

func ignoreTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return fmt.Errorf("watch network namespace: %w", err)
}

// read waits for one announcement.
func (w *Watcher) read(deadline time.Time) error {
	if err := w.sock.SetReadDeadline(deadline); err != nil {
		return err
	}
	var buf [1]byte // the rest of a message is dropped
	_, err := w.sock.Read(buf[:])
	if errors.Is(err, unix.ENOBUFS) { // more than the socket could hold: that is a change as well
		return nil
	}
	return err
}

// Close ends the watch and wakes a Wait.
func (w *Watcher) Close() error { return w.sock.Close() }
