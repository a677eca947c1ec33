package condwait

import (
	"context"
	"sync"
)

// Until waits until holds returns true or ctx ends, and returns ctx's error in
// the latter case. The caller holds cond.L, under which holds runs. Whatever
// changes its result must broadcast.
func Until(ctx context.Context, cond *sync.Cond, holds func() bool) error {
	if holds() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		cond.Broadcast()
	})
	defer stop()
	for !holds() {
		if err := ctx.Err(); err != nil {
			return err
		}
		cond.Wait()
	}
	return nil
}
