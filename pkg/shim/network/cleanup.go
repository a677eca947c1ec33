package network

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// Cleanup gives all links of the namespace at path back, after the VMM has
// ended. cookie is the namespace's, or 0 when that is not known. One that is gone is not an
// error, and neither is another one at its path, which is left as it is.
func Cleanup(path string, cookie uint64) error {
	n, err := Open(path)
	switch {
	case errors.Is(err, errdefs.ErrNotFound), errors.Is(err, ErrHost): // gone, or the path belongs to another one by now
		return nil
	case err != nil:
		return fmt.Errorf("clean up network: %w", err)
	}
	defer func() { _ = n.Close() }()
	now, err := n.Cookie()
	if err != nil {
		return fmt.Errorf("clean up network: %w", err)
	}
	if cookie != 0 && now != cookie { // the path of a pid, for example, that was used again
		return nil
	}
	links, err := n.handle.LinkList()
	if err != nil {
		return fmt.Errorf("clean up network namespace %s: list links: %w", path, err)
	}
	var errs []error
	for _, link := range links {
		if err := n.Disconnect(link.Attrs().Index); err != nil {
			errs = append(errs, fmt.Errorf("clean up network namespace %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}
