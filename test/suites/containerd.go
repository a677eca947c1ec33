package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// containerdModule is what the suites are a part of.
const containerdModule = "github.com/containerd/containerd/v2"

// clientSuite starts a containerd of its own and drives it as ctr does.
var clientSuite = suite{
	name:    "client",
	compare: compare,
	build: func(ctx context.Context, o options) error {
		return buildContainerd(ctx, o, "client", "./integration/client")
	},
	run: func(ctx context.Context, o options, runtime string) (results, error) {
		kind := map[string]string{"runc": "io.containerd.runc.v2", "ccv2": "io.containerd.cc.v2"}[runtime]
		if err := os.Setenv("TEST_RUNTIME", kind); err != nil {
			return nil, err
		}
		return runTest(ctx, o, runtime, "test", "-test.root", "-test.parallel", "2")
	},
}

// criSuite plays the part of the kubelet.
var criSuite = suite{
	name:    "cri",
	compare: compare,
	build:   func(ctx context.Context, o options) error { return buildContainerd(ctx, o, "cri", "./integration") },
	run: func(ctx context.Context, o options, runtime string) (results, error) {
		d, err := startDaemon(ctx, o, runtime)
		if err != nil {
			return nil, err
		}
		defer d.close()
		flags := []string{"-runtime-handler", runtime, "-cri-endpoint", "unix://" + socket, "-build-dir", filepath.Join(o.build, "bin")}
		skip := append([]string{"TestIssue10244LoopbackV2"}, twoProcessors...) // takes 4 minutes, with a containerd of its own and always with runc
		all, err := runTest(ctx, o, runtime, "test", append(flags, "-test.skip", only(skip))...)
		if err != nil {
			return nil, err
		}
		asked, err := regexp.Compile(o.run)
		if err != nil {
			return nil, err
		}
		rest := slices.DeleteFunc(slices.Clone(twoProcessors), func(name string) bool { return !asked.MatchString(name) })
		if len(rest) == 0 {
			return all, nil
		}
		if err := configure(ctx, o, 2); err != nil {
			return nil, err
		}
		o.run = only(rest)
		two, err := runTest(ctx, o, runtime, "test2", flags...)
		maps.Copy(all, two)
		return all, err
	},
}

// twoProcessors are tests that give a container processor 1.
var twoProcessors = []string{"TestNriLinuxCpusetAdjustment", "TestNriLinuxCpusetAdjustmentUpdate"}

// only matches the tests alone.
func only(tests []string) string { return "^(" + strings.Join(tests, "|") + ")$" }

func testPath(build, suite string) string { return filepath.Join(build, "suites", suite+".test") }

// buildContainerd builds tests of the version of containerd that the other tests
// run with, in the module cache.
func buildContainerd(ctx context.Context, o options, suite, pkg string) error {
	list := exec.CommandContext(ctx, "go", "-C", "../../tools/stack", "list", "-m", "-json", containerdModule)
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("find %s: %w", containerdModule, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"test", "-c", "-o", testPath(o.build, suite), pkg},
		{"build", "-o", failpoints(o.build) + "/", "./integration/failpoint/cmd/..."},
	} {
		cmd := exec.CommandContext(ctx, "go", slices.Insert(args, 1, "-buildvcs=false", "-tags", "no_btrfs")...)
		cmd.Dir = module.Dir
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}

// failpoints is where programs are that fail as tests tell them: a CNI plugin, a
// runc and its shim.
func failpoints(build string) string { return filepath.Join(build, "suites", "bin") }

// runTest runs a test binary; that tests fail is not an error.
func runTest(ctx context.Context, o options, runtime, name string, flags ...string) (results, error) {
	log, err := os.Create(logPath(o.build, o.suite, runtime, name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, testPath(o.build, o.suite), append(flags, "-test.v", "-test.timeout", "1h", "-test.run", o.run)...)
	cmd.Dir = o.scratch
	cmd.Stdout, cmd.Stderr = log, log
	_ = cmd.Run() // the results say more
	return parse(log.Name())
}
