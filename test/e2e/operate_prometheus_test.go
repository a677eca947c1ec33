//go:build e2e && prometheus

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// tool is a program that was built from Prometheus's module.
func tool(name string) string { return filepath.Join(os.Getenv("CCV2_PROMETHEUS"), name) }

// TestRules: promtool accepts the rules, and each alert fires on what it is about, and on nothing else.
func TestRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "../../deploy/metrics/rules.yaml"}, {"test", "rules", "testdata/rules_test.yaml"}} {
		if out, err := exec.Command(tool("promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// start starts a program, which ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	})
}

// exporter starts ccv2 metrics, and returns its address.
func exporter(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(shared.Bin, "ccv2"), "metrics", "--listen", "127.0.0.1:0", "--overhead", "448")
	cmd.Env, cmd.Stderr = shared.Env(), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(strings.TrimSpace(line), "http://")
	return strings.TrimSuffix(rest, "/metrics")
}

// freePort is one that nobody listens on at this moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// prometheus starts one that scrapes an address every 5 s, and returns its own.
func prometheus(t *testing.T, target string) string {
	t.Helper()
	rules, err := filepath.Abs("../../deploy/metrics/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), freePort(t)
	// The exporter may take two of its limits, of 2 s each, when shims hang.
	config := fmt.Sprintf("global: {scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 1s}\nrule_files: [%q]\n"+
		"scrape_configs: [{job_name: ccv2, static_configs: [{targets: [%q]}]}]\n", rules, target)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool("prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address, "--log.level=error")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	start(t, cmd)
	return "http://" + address
}

// get asks Prometheus's API; an error is one of the API as well.
func get(base, path string, v any) error {
	r, err := http.Get(base + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return fmt.Errorf("status %d: %w", r.StatusCode, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("status %d: %s", r.StatusCode, answer.Error)
	}
	return json.Unmarshal(answer.Data, v)
}

// series is how many series an expression has, and the value of the first one.
func series(t *testing.T, base, expr string) (n int, value string) {
	t.Helper()
	var answer struct {
		Result []struct{ Value [2]any }
	}
	if err := get(base, "/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		t.Errorf("%s: %v", expr, err)
		return 0, ""
	}
	if len(answer.Result) > 0 {
		value, _ = answer.Result[0].Value[1].(string)
	}
	return len(answer.Result), value
}

// TestPrometheus has a Prometheus scrape pods that live, hang and have ended, with the rules and the dashboard
// that are in deploy.
func TestPrometheus(t *testing.T) {
	shared.Watch(t)
	base := prometheus(t, exporter(t))
	harness.Until(t, "answer of Prometheus", func() bool { return get(base, "/api/v1/status/buildinfo", new(any)) == nil })
	task := shared.Running(t, "scraped", harness.Streams{}, []string{"sleep", "1000"})
	shared.Output(t, task, "some-exec", "true")
	for expr, want := range map[string]string{
		`ccv2_pod_up{sandbox="scraped"}`:                                         "1",
		`ccv2_sandboxes{state="ready"}`:                                          "1",
		`sum(ccv2_sandbox_starts_total{result="success"})`:                       "1",
		`ccv2_task_call_duration_seconds_count{operation="StartExec"}`:           "1",
		`count(ccv2_pod_memory_bytes{sandbox="scraped"} > 0)`:                    "3",
		`count(ccv2_pod_virtiofs_operations_total{sandbox="scraped"} > 0)`:       "2",
		`count(ccv2_pod_guest_memory_bytes{sandbox="scraped"} > 100000000)`:      "1",
		`sum(ccv2_guest_messages_total{kind="EXECCMD",direction="to_guest"})`:    "1",
		`ccv2_sandbox_start_phase_duration_seconds_count{phase="start vm"} >= 1`: "1",
	} {
		harness.Until(t, expr+" is "+want, func() bool {
			_, got := series(t, base, expr)
			return got == want
		})
	}
	wantDashboard(t, base)
	wantRules(t, base)
	shim := shared.AwaitProcess(t, harness.Shim, "scraped")
	shim.Signal(t, unix.SIGSTOP)
	harness.Until(t, "notice that the shim hangs", func() bool {
		_, up := series(t, base, `ccv2_pod_up{sandbox="scraped"}`)
		_, scraped := series(t, base, `up{job="ccv2"}`)
		firing, _ := series(t, base, `ALERTS{alertname="CCV2ShimDoesNotAnswer"}`)
		return up == "0" && scraped == "1" && firing == 1
	})
	shim.Signal(t, unix.SIGCONT)
	shared.AwaitProcess(t, harness.QEMU, "scraped").Signal(t, unix.SIGKILL)
	harness.Until(t, "count the failure, and forget the pod", func() bool {
		_, failures := series(t, base, `ccv2_sandbox_failures_total{cause="qemu"}`)
		pods, _ := series(t, base, `ccv2_pod_up`)
		return failures == "1" && pods == 0
	})
}

// wantDashboard evaluates each expression of the dashboard, with its variables.
func wantDashboard(t *testing.T, base string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/metrics/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$instance", ".*", "$namespace", ".*", "$pod", ".*", "$__rate_interval", "1m")
	evaluated := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			series(t, base, variables.Replace(target.Expr))
			evaluated++
		}
	}
	if evaluated < 20 {
		t.Errorf("%d expressions were found", evaluated)
	}
}

// wantRules wants each rule to be evaluated without an error.
func wantRules(t *testing.T, base string) {
	t.Helper()
	var answer struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	rules := 0
	if err := get(base, "/api/v1/rules", &answer); err != nil {
		t.Fatal(err)
	}
	for _, g := range answer.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Health != "ok" {
				t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if rules < 8 {
		t.Errorf("%d rules were evaluated", rules)
	}
}
