package proxyproto_test

import (
	"bytes"
	"fmt"

	"github.com/ccv2/containerd-shim-ccv2/pkg/proxyproto"
)

// A client writes a command, and reads the response to it.
func Example() {
	var sent, received bytes.Buffer
	w, r := proxyproto.NewWriter(&sent), proxyproto.NewReader(&received)

	err := w.WriteCommand(proxyproto.CmdAttachVM, proxyproto.AttachVM{ContainerID: "pod", NumIOStreams: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("% x %s\n", sent.Bytes()[:proxyproto.HeaderLen], sent.Bytes()[proxyproto.HeaderLen:])

	// The proxy's part.
	err = proxyproto.NewWriter(&received).WriteResponseJSON(proxyproto.CmdAttachVM, proxyproto.AttachVMResponse{
		IO: proxyproto.IOResponse{URL: "unix:///run/proxy.sock", Tokens: []string{"secret"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	f, err := r.ReadFrame()
	if err == nil {
		err = f.Err() // set when the command failed
	}
	var response proxyproto.AttachVMResponse
	if err == nil {
		err = f.Decode(&response)
	}
	fmt.Println(f.Header, response.IO.Tokens, err)
	// Output:
	// 00 02 03 00 00 00 00 02 00 00 00 26 {"containerId":"pod","numIOStreams":1}
	// response AttachVM [secret] <nil>
}
