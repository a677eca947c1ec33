// Package goroutines counts the goroutines of an object, so that its end can join them.
// Unlike a sync.WaitGroup a [Group] may be waited for while others are being started,
// and together with something else.
package goroutines
