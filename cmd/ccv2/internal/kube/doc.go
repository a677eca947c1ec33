// Package kube asks the API server of the cluster that this process is a pod of what
// installing on a node has to know, and labels the node. It is three requests, with the
// pod's service account; a client library would be twenty times the tool's size.
package kube
