package kube

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// server answers for the API server; what it was asked is in asked.
type server struct {
	asked  []string
	answer func(r *http.Request) (int, string)
}

func serve(t *testing.T, answer func(r *http.Request) (int, string)) (*Client, *server) {
	t.Helper()
	s := &server{answer: answer}
	h := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.asked = append(s.asked, strings.TrimSpace(fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.Header.Get("Authorization"), " ", r.Header.Get("Content-Type"), " ", string(body))))
		code, text := s.answer(r)
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(h.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Client{Node: "n1", Namespace: "ccv2", DaemonSet: "set", server: h.URL, token: token, http: h.Client()}, s
}

// TestLabel: the patch touches one label, and the token is the one of now.
func TestLabel(t *testing.T) {
	c, s := serve(t, func(*http.Request) (int, string) { return http.StatusOK, "{}" })
	if err := c.Label(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.token, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Label(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	const begin, kind = "PATCH /api/v1/nodes/n1 Bearer ", " application/strategic-merge-patch+json "
	want := []string{
		begin + "one" + kind + `{"metadata":{"labels":{"ccv2.io/runtime":"true"}}}`,
		begin + "two" + kind + `{"metadata":{"labels":{"ccv2.io/runtime":null}}}`,
	}
	if diff := cmp.Diff(want, s.asked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHandlers are those of a node as an API server writes it.
func TestHandlers(t *testing.T) {
	text := `{"kind":"Node","metadata":{"name":"n1"},"status":{"runtimeHandlers":[{"features":{"recursiveReadOnlyMounts":true},"name":""},{"name":"ccv2"}]}}`
	c, s := serve(t, func(*http.Request) (int, string) { return http.StatusOK, text })
	got, err := c.Handlers(t.Context())
	if diff := cmp.Diff([]string{"", "ccv2"}, got); diff != "" || err != nil || s.asked[0] != "GET /api/v1/nodes/n1 Bearer one" {
		t.Errorf("%v, %s, asked %q", err, diff, s.asked)
	}
	text = `{"status":{}}`
	if got, err := c.Handlers(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("of an old kubelet: %v, %v", got, err)
	}
	text = "<html>"
	if _, err := c.Handlers(t.Context()); err == nil || !strings.Contains(err.Error(), "GET /api/v1/nodes/n1") {
		t.Errorf("of something else: %v", err)
	}
}

// TestDeleted: only what is sure is a deletion.
func TestDeleted(t *testing.T) {
	message := func(text string) string {
		b, err := json.Marshal(map[string]string{"kind": "Status", "message": text})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, tt := range []struct {
		code     int
		body     string
		deleted  bool
		fails    string
		noRights bool
	}{
		{code: 200, body: `{"metadata":{"name":"set"}}`},
		{code: 200, body: `{"metadata":{"name":"set","deletionTimestamp":"2026-01-01T00:00:00Z"}}`, deleted: true},
		{code: 404, body: message(`daemonsets.apps "set" not found`), deleted: true},
		{code: 403, body: message("is forbidden"), fails: "the API server says 403: is forbidden", noRights: true},
		{code: 401, body: message("Unauthorized"), fails: "401: Unauthorized", noRights: true},
		{code: 500, body: "", fails: "500: GET /apis/apps/v1/namespaces/ccv2/daemonsets/set"},
	} {
		c, _ := serve(t, func(*http.Request) (int, string) { return tt.code, tt.body })
		deleted, err := c.Deleted(t.Context())
		if deleted != tt.deleted || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) || NoRights(err) != tt.noRights {
			t.Errorf("%d %s: %v, %v", tt.code, tt.body, deleted, err)
		}
	}
	c, _ := serve(t, nil)
	c.server = "https://127.0.0.1:1"
	if deleted, err := c.Deleted(t.Context()); err == nil || deleted || NoRights(err) {
		t.Errorf("without an API server: %v, %v", deleted, err)
	}
}

// TestInCluster: what is missing is named.
func TestInCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := InCluster("n1", "ccv2", "set"); err == nil || !strings.Contains(err.Error(), "KUBERNETES_SERVICE_HOST") {
		t.Error(err)
	}
}
