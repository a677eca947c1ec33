package livevolume

import "github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"

// View is a container's view of the share in which live volumes are watched.
type View struct {
	*share.View

	watch *Watch // nil where the guest copies nothing
	paths []string
}

// View returns the view of a container with w, which may be nil: nothing is watched then.
func (w *Watch) View(v *share.View) *View { return &View{View: v, watch: w} }

// Bind is [share.View.Bind].
func (v *View) Bind(b share.Bind) (path string, guard bool, err error) {
	if v.watch == nil {
		return v.View.Bind(b)
	}
	path, guard, err = v.watch.Bind(b, v.View.Bind)
	if err == nil {
		v.paths = append(v.paths, path)
	}
	return path, guard, err
}

// Close is [share.View.Close].
func (v *View) Close() error {
	for _, path := range v.paths {
		v.watch.Forget(path)
	}
	v.paths = nil
	return v.View.Close()
}
