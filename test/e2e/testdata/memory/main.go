// Command memory grows until it is killed, as a server does that leaks: with small
// objects, several threads and a garbage collector that looks at all of them. It links
// what makes the text of a Go program as large as usual.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

type node struct {
	next   *node
	values map[string]string
	b      [64]byte
}

func main() {
	go func() { fmt.Println(http.ListenAndServe("127.0.0.1:0", nil)) }()
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			if _, err := json.Marshal(map[string]int{"a": 1}); err != nil {
				os.Exit(1)
			}
		}
	}()
	var list *node
	for i := range 10_000_000 {
		list = &node{next: list, values: map[string]string{strconv.Itoa(i): "x"}}
	}
	fmt.Println("has grown", len(list.values), list.b[0])
}
