package spare

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/hostproc"
)

// killUsers ends the VMM whose maker has died before it could record it: its arguments have
// the directory. So have those of a VMM that was moved since, which is why no directory has the
// name of an earlier one.
func killUsers(ctx context.Context, dir string) error {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		args, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(args), "path="+strings.ReplaceAll(dir, ",", ",,")+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if p, err := hostproc.Of("VMM of a spare vm", pid); err == nil {
			errs = append(errs, p.Kill(ctx))
		}
	}
	return errors.Join(errs...)
}

// madeIn matches an argument of a VMM that was started in a pool.
var madeIn = regexp.MustCompile(`path=(/[^\x00]*/\.spare)/[0-9]+\.part/`)

// Others are the pools of other directories of sandboxes that have VMs in the group: those of other
// configurations, and of earlier ones.
func (p *Pool) Others() ([]*Pool, error) {
	pids, err := p.Group.Processes()
	if err != nil {
		return nil, err
	}
	var all []*Pool
	for _, pid := range pids {
		args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil {
			continue // it has ended
		}
		m := madeIn.FindSubmatch(args)
		if m == nil {
			continue
		}
		other := &Pool{Dir: strings.ReplaceAll(string(m[1]), ",,", ","), Group: p.Group}
		if other.Dir != p.Dir && !slices.ContainsFunc(all, func(o *Pool) bool { return o.Dir == other.Dir }) {
			all = append(all, other)
		}
	}
	return all, nil
}
