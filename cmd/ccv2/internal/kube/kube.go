package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// label is that of nodes on which a VM has booted; the RuntimeClass selects them.
const label = "ccv2.io/runtime"

// serviceAccount is where the kubelet puts it in a pod.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// timeout is that of a request.
const timeout = 10 * time.Second

// Client speaks of one node, and of the DaemonSet whose pod this is.
type Client struct {
	Node, Namespace, DaemonSet string

	server string // its URL
	token  string // the file: the kubelet renews what is in it
	http   *http.Client
}

// InCluster is the client of a pod.
func InCluster(node, namespace, daemonSet string) (*Client, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("no KUBERNETES_SERVICE_HOST: this is no pod of a cluster")
	}
	pem, err := os.ReadFile(filepath.Join(serviceAccount, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("service account of the pod: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("service account of the pod: %s/ca.crt has no certificate", serviceAccount)
	}
	return &Client{
		Node: node, Namespace: namespace, DaemonSet: daemonSet,
		server: "https://" + net.JoinHostPort(host, port), token: filepath.Join(serviceAccount, "token"),
		http: &http.Client{
			Timeout:   timeout,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Proxy: http.ProxyFromEnvironment},
		},
	}, nil
}

// Label sets the label of the node, or takes it away.
func (c *Client) Label(ctx context.Context, on bool) error {
	var value any // null removes it
	if on {
		value = "true"
	}
	patch := map[string]any{"metadata": map[string]any{"labels": map[string]any{label: value}}}
	return c.do(ctx, http.MethodPatch, "/api/v1/nodes/"+url.PathEscape(c.Node), patch, nil)
}

// Handlers are the runtimes that the kubelet has seen in containerd; none when the
// kubelet or containerd is too old to tell.
func (c *Client) Handlers(ctx context.Context) ([]string, error) {
	var node struct {
		Status struct {
			RuntimeHandlers []struct{ Name string }
		}
	}
	err := c.do(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(c.Node), nil, &node)
	names := make([]string, len(node.Status.RuntimeHandlers))
	for i, h := range node.Status.RuntimeHandlers {
		names[i] = h.Name
	}
	return names, err
}

// Deleted reports whether the DaemonSet is deleted, or about to be: its pods end for good
// then, and not for an upgrade.
func (c *Client) Deleted(ctx context.Context) (bool, error) {
	var set struct {
		Metadata struct{ DeletionTimestamp string }
	}
	path := "/apis/apps/v1/namespaces/" + url.PathEscape(c.Namespace) + "/daemonsets/" + url.PathEscape(c.DaemonSet)
	err := c.do(ctx, http.MethodGet, path, nil, &set)
	var status *StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return true, nil
	}
	return set.Metadata.DeletionTimestamp != "", err
}

// StatusError is an answer that says no.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the API server says %d: %s", e.Code, e.Message)
}

// NoRights reports whether an error is that the service account may not do something, or
// is not there any more.
func NoRights(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
}

// Again reports whether an error says nothing of what was asked for: there was no answer, or
// the server has something else to do first. A certificate that is not the cluster's stays
// as it is; a new one needs a new client.
func Again(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Code == http.StatusConflict || status.Code == http.StatusTooManyRequests || status.Code >= http.StatusInternalServerError
	}
	_, ok := errors.AsType[*url.Error](err)
	return ok
}

// do makes a request, and decodes the answer.
func (c *Client) do(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, content)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(c.token)
	if err != nil {
		return fmt.Errorf("service account of the pod: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	const limit = 8 << 20 // a node lists its images
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		var status struct{ Message string }
		if json.Unmarshal(data, &status) != nil || status.Message == "" {
			status.Message = method + " " + path
		}
		return &StatusError{Code: answer.StatusCode, Message: status.Message}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
