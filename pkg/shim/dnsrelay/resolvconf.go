package dnsrelay

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxFile is how much of a resolv.conf is read. A container may write to it.
	maxFile = 64 << 10
	// maxServers are as many as the guest takes.
	maxServers = 16
)

// readServers reads which name servers are on the loopback. A file that is none, or that
// does not exist, names no server.
func readServers(path string) ([]netip.Addr, error) {
	// What a container has put there must not keep anybody waiting.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return parse(io.LimitReader(f, maxFile))
}

func parse(text io.Reader) ([]netip.Addr, error) {
	var servers []netip.Addr
	lines := bufio.NewScanner(text)
	for lines.Scan() && len(servers) < maxServers {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		server, err := netip.ParseAddr(fields[1])
		if err == nil && server.Is4() && server.IsLoopback() && !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	return servers, lines.Err()
}
