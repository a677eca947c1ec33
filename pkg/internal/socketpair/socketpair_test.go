package socketpair_test

import (
	"io"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/internal/socketpair"
)

func TestNew(t *testing.T) {
	a, b, err := socketpair.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(b)
	if string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
