package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/install"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/kube"
)

// handler is the name of the runtime in containerd's configuration.
const handler = "ccv2"

// API is what is asked of the cluster.
type API interface {
	Label(ctx context.Context, on bool) error
	Handlers(ctx context.Context) ([]string, error)
	Deleted(ctx context.Context) (bool, error)
}

// Agent is the program of a pod.
type Agent struct {
	API    API
	Host   install.Host
	Bundle string // an unpacked one
	Out    io.Writer

	// Restart restarts the host's containerd; nil when that is left to the operator.
	Restart func(ctx context.Context) error
	// Probe boots a VM with what is installed.
	Probe func(ctx context.Context) error
	// Uninstall takes away what was installed. While pods run in VMs it is an
	// *install.InUseError.
	Uninstall func() error
	// Ready is told when the node has its label, and when it has lost it.
	Ready func(bool) error
	// Every is how often is looked at what nobody tells: whether containerd has been
	// restarted, whether pods have ended, whether the API server answers again.
	Every time.Duration
	// Patience is how long a pod that ends waits for that.
	Patience time.Duration
	// Apart is how long before its end a pod has lost its rights when they were not deleted
	// together with the DaemonSet.
	Apart time.Duration

	lost time.Time // when the rights were first found to be lost
}

// Run does all of it. It returns when the context has ended, or when something does not
// work.
func (a *Agent) Run(ctx context.Context) error {
	err := a.bringUp(ctx)
	for err == nil && ctx.Err() == nil {
		if a.tend(ctx); ctx.Err() == nil {
			err = a.bringUpAgain(ctx)
		}
	}
	if ctx.Err() == nil {
		return err
	}
	return a.end(context.WithoutCancel(ctx))
}

// bringUp does everything until the node has its label.
func (a *Agent) bringUp(ctx context.Context) error {
	if err := a.install(ctx); err != nil {
		return err
	}
	if err := a.await(ctx); err != nil {
		return err
	}
	if err := a.Probe(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return errors.Join(fmt.Errorf("it is installed, but no VM boots on this node: %w", err), a.label(ctx, false))
	}
	if err := a.label(ctx, true); err != nil {
		return err
	}
	fmt.Fprintln(a.Out, "a VM has booted, and the node has the label: pods with runtimeClassName ccv2 may come")
	return a.Ready(true)
}

// install installs the bundle, when nobody else is changing the installation.
func (a *Agent) install(ctx context.Context) error {
	for said, tick := false, time.NewTicker(a.Every); ; said = true {
		err := install.Install(a.Host, a.Bundle, false, a.Out)
		if !errors.Is(err, install.ErrBusy) {
			return err
		}
		if !said {
			fmt.Fprintf(a.Out, "%v: it is tried again\n", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// bringUpAgain does it anew when containerd's configuration has lost the runtime. Meanwhile
// no pod is to come: a containerd that was restarted since does not know of it.
func (a *Agent) bringUpAgain(ctx context.Context) error {
	if err := errors.Join(a.Ready(false), a.label(ctx, false)); err != nil {
		return err
	}
	return a.bringUp(ctx)
}

// await waits until containerd knows of the runtime, and restarts it if that is allowed.
func (a *Agent) await(ctx context.Context) error {
	known, err := a.known(ctx)
	if err != nil || known {
		return err
	}
	if a.Restart != nil {
		fmt.Fprintln(a.Out, "containerd does not know of the runtime yet, and is restarted")
		if err := a.Restart(ctx); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.Out, "containerd does not know of the runtime until it is restarted, which this DaemonSet may not do: restart it on this node")
	}
	for looked, tick := 0, time.NewTicker(a.Every); ; looked++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		known, err := a.known(ctx)
		if known || err != nil && !errors.Is(err, install.ErrNoContainerd) {
			return err
		}
		if looked == patient {
			a.explain()
		}
	}
}

// patient is after how many looks is said what may be wrong.
const patient = 30

// explain says what may be wrong when containerd does not get to know of the runtime.
func (a *Agent) explain() {
	if read, err := install.HasRead(a.Host); err != nil || !read {
		fmt.Fprintln(a.Out, "containerd has not been restarted since the runtime was written into its configuration: it is still waited for")
		return
	}
	fmt.Fprintf(a.Out, "containerd has been restarted, and the kubelet does not list the runtime %s yet. If that stays: %s is not what containerd reads "+
		"(-containerd-config names another file), or something else takes the runtime away (`containerd config dump` on this node)\n", handler, a.Host.Containerd)
}

// label sets the label of the node, or takes it away.
func (a *Agent) label(ctx context.Context, on bool) error {
	return a.ask(ctx, "label the node", func(ctx context.Context) error { return a.API.Label(ctx, on) })
}

// ask asks the API server until there is an answer: it may be restarted, or have too much to
// do. A no is an answer.
func (a *Agent) ask(ctx context.Context, what string, question func(context.Context) error) error {
	for said, tick := false, time.NewTicker(a.Every); ; {
		err := question(ctx)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w", what, err)
		if !kube.Again(err) {
			return err
		}
		if !said {
			said = true
			fmt.Fprintf(a.Out, "%v: it is tried again\n", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// known reports whether containerd has read of the runtime: it was started since that was
// written. The kubelet of newer clusters says as well whether containerd has it, some time
// later: that it is there may be news of yesterday, that it is not means that containerd
// does not read what was written.
func (a *Agent) known(ctx context.Context) (bool, error) {
	read, err := install.HasRead(a.Host)
	if err != nil || !read {
		return false, err
	}
	var names []string
	err = a.ask(ctx, "ask for the node's runtimes", func(ctx context.Context) (err error) {
		names, err = a.API.Handlers(ctx)
		return err
	})
	return err == nil && (len(names) == 0 || slices.Contains(names, handler)), err
}

// tend removes the files of earlier versions when their last pods have ended. It returns when
// the context has ended, or when containerd's configuration has lost the runtime.
func (a *Agent) tend(ctx context.Context) {
	before := ""
	for looked, tick := 1, time.NewTicker(a.Every); ; looked++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		lost, err := install.Lost(a.Host)
		if lost != "" && lost == before { // else somebody may be about to write it
			fmt.Fprintf(a.Out, "%s has lost the runtime (%s writes it again): if something else writes that file, have it keep what is between the marks\n", lost, handler)
			return
		}
		if before = lost; err != nil {
			fmt.Fprintln(a.Out, "whether containerd's configuration has the runtime is not known for now:", err)
		}
		if err := install.Prune(a.Host, io.Discard); err != nil {
			fmt.Fprintln(a.Out, "files of earlier versions stay for now:", err)
		}
		if looked%patient == 0 {
			a.lookAtRights(ctx)
		}
	}
}

// lookAtRights notes since when this pod may not ask for its DaemonSet. Whoever deletes the
// rights together with the DaemonSet has this pod ended soon after.
func (a *Agent) lookAtRights(ctx context.Context) {
	_, err := a.API.Deleted(ctx)
	switch {
	case !kube.NoRights(err):
		a.lost = time.Time{}
	case a.lost.IsZero():
		a.lost = time.Now()
		fmt.Fprintln(a.Out, "this pod has lost its rights (kubectl apply -k deploy gives them back): without them it can neither keep the label of the node nor be told of an upgrade:", err)
	}
}

// end takes everything away when the DaemonSet is deleted.
func (a *Agent) end(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, a.Patience)
	defer cancel()
	deleted, err := a.deleted(asking)
	switch {
	case kube.NoRights(err) && !a.lost.IsZero() && time.Since(a.lost) > a.Apart:
		return fmt.Errorf("the rights of this pod were lost %v before its end, so whether the DaemonSet is deleted is not known, and all stays: %w", time.Since(a.lost).Round(time.Second), err)
	case kube.NoRights(err):
		// `kubectl delete -k` deletes the service account with the DaemonSet.
		fmt.Fprintln(a.Out, "rights of this pod are deleted, and so is the DaemonSet:", err)
	case err != nil:
		return fmt.Errorf("whether the DaemonSet is deleted is not known, and all stays: %w", err)
	case !deleted:
		fmt.Fprintln(a.Out, "the DaemonSet is there: what is installed stays")
		return nil
	}
	// No pod is to come meanwhile.
	if err := a.label(asking, false); err != nil {
		fmt.Fprintln(a.Out, "the label of the node stays:", err)
	}
	if err := a.uninstall(ctx); err != nil {
		return err
	}
	if a.Restart != nil {
		return a.Restart(ctx)
	}
	return nil
}

// deleted asks whether the DaemonSet is deleted. That the pod may not ask is said by some
// answers, one of which may be a mistake of a server that is being started.
func (a *Agent) deleted(ctx context.Context) (deleted bool, err error) {
	const answers = 3
	for n, tick := 1, time.NewTicker(a.Every); ; n++ {
		err = a.ask(ctx, "ask for the DaemonSet", func(ctx context.Context) (err error) {
			deleted, err = a.API.Deleted(ctx)
			return err
		})
		if !kube.NoRights(err) || n == answers {
			return deleted, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, fmt.Errorf("%w, %w", ctx.Err(), err)
		}
	}
}

// uninstall waits for the end of the pods that run in VMs, until this pod is killed.
func (a *Agent) uninstall(ctx context.Context) error {
	if version, err := install.Installed(a.Host); err != nil || version == "" {
		return err
	}
	waits := false
	for tick := time.NewTicker(a.Every); ; {
		err := a.Uninstall()
		var used *install.InUseError
		if !errors.As(err, &used) {
			return err
		}
		if !waits {
			waits = true
			fmt.Fprintf(a.Out, "%d processes of pods run in VMs: it waits for their end, as long as terminationGracePeriodSeconds\n", len(used.Pids))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
