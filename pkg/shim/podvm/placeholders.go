package podvm

import (
	"context"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/placeholder"
)

// placeholders are those that no container has released yet. Its zero value has
// none.
type placeholders struct {
	mu   sync.Mutex // guards live
	live map[*placeholder.Placeholder]struct{}
}

// add keeps a placeholder until it is released.
func (s *placeholders) add(p *placeholder.Placeholder) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = make(map[*placeholder.Placeholder]struct{})
	}
	s.live[p] = struct{}{}
	return func() { s.release(p) }
}

// release ends a placeholder, unless it was released.
func (s *placeholders) release(p *placeholder.Placeholder) {
	s.mu.Lock()
	_, live := s.live[p]
	delete(s.live, p)
	s.mu.Unlock()
	if live {
		p.Release()
	}
}

// releaseAll ends all placeholders. It is a step of a release.
func (s *placeholders) releaseAll(context.Context) error {
	s.mu.Lock()
	all := s.live
	s.live = nil
	s.mu.Unlock()
	for p := range all {
		p.Release()
	}
	return nil
}
