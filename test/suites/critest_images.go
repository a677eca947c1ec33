package main

import (
	"maps"
	"os"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	e2eImages = "registry.k8s.io/e2e-test-images/"
	testImage = "gcr.io/k8s-staging-cri-tools/test-image-"
	// digestImage is pulled by the digest that it has here.
	digestImage = testImage + "digest:latest"
)

// files is a layer.
type files = map[string]ociimage.File

// critestRecipes are the images that critest pulls. Tests tell images apart by
// their ids, so those that do nothing have a label each.
func critestRecipes(busybox, program string) (map[string]recipe, error) {
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	ours, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	server := func(name, port string) recipe {
		return recipe{
			layers: []files{{"bin/" + name: {Data: ours}, "var/run": {Dir: true}}},
			// nginx is recognised by its init process's title.
			config: v1.Config{Cmd: []string{name, "master process"}, Env: []string{"PORT=" + port}},
		}
	}
	pod := recipe{layers: []files{{"pause": {Data: ours}}}, config: v1.Config{Entrypoint: []string{"/pause"}}}
	all := map[string]recipe{
		// The one program that a test masks must not be a link to all others.
		e2eImages + "busybox:1.29-2":                              {layers: []files{{"bin/ls": {Data: shell}}}},
		e2eImages + "nginx:1.14-2":                                server("nginx", "80"),
		e2eImages + "httpd:2.4.39-4":                              server("httpd", "80"),
		"gcr.io/k8s-staging-cri-tools/hostnet-nginx-amd64:latest": server("nginx", "12003"),
		e2eImages + "nonewprivs:1.3": {
			layers: []files{{"bin/nonewprivs": {Data: ours, Mode: 0o4755}}}, config: v1.Config{Cmd: []string{"nonewprivs"}},
		},
		"registry.k8s.io/pause:3.10.2": pod,
		// Removed under one of its names; the pods' own image must not go with it.
		"registry.k8s.io/pause:3.9": labelled(pod, "3.9"),
		"k8s.gcr.io/pause:3.9":      labelled(pod, "3.9"),
		testImage + "predefined-group:latest": {
			layers: []files{{
				"etc/passwd": {Mode: 0o644, Data: []byte(users + "default-user:x:1000:1000::/home:/bin/sh\n")},
				"etc/group":  {Mode: 0o644, Data: []byte(groups + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")},
			}},
			config: v1.Config{User: "1000"},
		},
	}
	for name, user := range map[string]string{
		"user-uid": "1002", "user-username": "www-data", "user-uid-group": "1003:users", "user-username-group": "www-data:100",
	} {
		all[testImage+name+":latest"] = recipe{config: v1.Config{User: user}}
	}
	for _, name := range []string{testImage + "latest:latest", testImage + "tag:test", testImage + "tag:all", digestImage} {
		all[name] = labelled(recipe{}, name)
	}
	for _, n := range []string{"1", "2", "3"} {
		all[testImage+n+":latest"] = labelled(recipe{}, n)
		all[testImage+"tags:"+n] = labelled(recipe{}, "tags")
	}
	return all, nil
}

// labelled returns an image of its own that does what r does.
func labelled(r recipe, label string) recipe {
	r.config.Labels = maps.Clone(r.config.Labels)
	if r.config.Labels == nil {
		r.config.Labels = map[string]string{}
	}
	r.config.Labels["critest"] = label
	return r
}
