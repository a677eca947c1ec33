package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/metrics"
)

// reader is a client that takes its answer when it is let.
type reader struct {
	*httptest.ResponseRecorder

	begun chan<- struct{}
	let   <-chan struct{}
}

func (r reader) Write(text []byte) (int, error) {
	r.begun <- struct{}{}
	<-r.let
	return r.ResponseRecorder.Write(text)
}

// TestClientsThatDoNotRead: those that ask and do not take their answer keep nobody else from theirs.
func TestClientsThatDoNotRead(t *testing.T) {
	handler := metrics.Handler(newHost(t).collector(1))
	const many = 10
	begun, let, done := make(chan struct{}, many), make(chan struct{}), make(chan int, many)
	for range many { // one after the other, as otherwise too many would collect at once
		go func() {
			w := httptest.NewRecorder()
			handler.ServeHTTP(reader{w, begun, let}, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			done <- w.Code
		}()
		<-begun
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || w.Body.Len() == 0 {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
	close(let)
	for range many {
		if status := <-done; status != http.StatusOK {
			t.Errorf("status %d for one that was slow", status)
		}
	}
}
