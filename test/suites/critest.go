package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const critestName = "critest"

// criTools has critest, the validation suite of the CRI.
const criTools = "sigs.k8s.io/cri-tools@v1.36.0"

// critestSuite plays the part of the kubelet, as the authors of the CRI do.
var critestSuite = suite{
	name:    critestName,
	compare: compare,
	build: func(ctx context.Context, o options) error {
		if err := buildPrograms(ctx, o); err != nil {
			return err
		}
		dir, err := copyCRITools(ctx, o)
		if err != nil {
			return err
		}
		if err := nameDigest(ctx, o, dir); err != nil {
			return err
		}
		return run(ctx, dir, "go", "test", "-c", "-buildvcs=false", "-o", testPath(o.build, critestName), "./cmd/critest")
	},
	run: func(ctx context.Context, o options, runtime string) (results, error) {
		d, err := startDaemon(ctx, o, runtime)
		if err != nil {
			return nil, err
		}
		defer d.close()
		log, err := os.Create(logPath(o.build, o.suite, runtime, "test"))
		if err != nil {
			return nil, err
		}
		defer func() { _ = log.Close() }()
		report := filepath.Join(o.scratch, "report.json")
		endpoint := "unix://" + socket
		cmd := exec.CommandContext(ctx, testPath(o.build, o.suite), "--runtime-endpoint", endpoint, "--image-endpoint", endpoint,
			"--runtime-handler", runtime, "--ginkgo.no-color", "--ginkgo.json-report", report, "--ginkgo.focus", o.run)
		cmd.Dir = o.scratch
		cmd.Stdout, cmd.Stderr = log, log
		_ = cmd.Run() // the results say more
		return parseGinkgo(report)
	},
}

// suiteBusybox is built for the images of critest, which need applets and
// options that Debian's does not have.
func suiteBusybox(build string) string { return filepath.Join(build, "suites", "busybox", "busybox") }

func suiteProgram(build string) string { return filepath.Join(build, "suites", "program") }

func buildPrograms(ctx context.Context, o options) error {
	if err := run(ctx, "../..", "hack/build-busybox.sh", filepath.Dir(suiteBusybox(o.build))); err != nil {
		return err
	}
	return run(ctx, ".", "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w",
		"-o", suiteProgram(o.build), "./program")
}

// copyCRITools makes a copy that can be changed, and returns where it is.
func copyCRITools(ctx context.Context, o options) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", criTools).Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w: %s", criTools, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", err
	}
	dir := filepath.Join(o.build, "suites", "cri-tools")
	if err := run(ctx, ".", "rm", "-rf", dir); err != nil {
		return "", err
	}
	return dir, errors.Join(run(ctx, ".", "cp", "-R", module.Dir, dir), run(ctx, ".", "chmod", "-R", "u+w", dir))
}

// nameDigest gives the suite the digest of our image instead of the original's,
// which cannot be made again. Nothing else of the suite is changed.
func nameDigest(ctx context.Context, o options, dir string) error {
	o.suite = critestName
	all, err := images(ctx, o)
	if err != nil {
		return err
	}
	digest, err := all[digestImage].Digest()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "pkg/validate/consts.go")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	original := regexp.MustCompile(`("test-image-digest@)sha256:[0-9a-f]{64}`)
	if !original.Match(text) {
		return fmt.Errorf("%s: no digest to replace; did another release change it?", path)
	}
	return os.WriteFile(path, original.ReplaceAll(text, []byte("${1}"+digest.String())), 0o644)
}

// parseGinkgo reads a report of ginkgo.
func parseGinkgo(path string) (results, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the suite has not come to its end: %w", err)
	}
	var reports []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeType            string
			LeafNodeText            string
			State                   string
		}
	}
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, err
	}
	r := results{}
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			if spec.LeafNodeType != "It" {
				continue
			}
			name := strings.Join(append(slices.Clone(spec.ContainerHierarchyTexts), spec.LeafNodeText), " ")
			// A slash is for parts of a test.
			name = strings.NewReplacer("/", " or ", "|", " or ", "[k8s.io] ", "").Replace(name)
			r[name] = map[string]string{"passed": "PASS", "skipped": "SKIP", "pending": "SKIP"}[spec.State]
			if r[name] == "" {
				r[name] = "FAIL"
			}
		}
	}
	return r, nil
}

// run runs a command in a directory.
func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}
