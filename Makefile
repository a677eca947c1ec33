# Everything is made below BUILD, without containers. `make help` lists the
# targets; CONTRIBUTING.md says how they fit together.

BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
# The file server: rust is built from source, debian is the distribution's, which may be
# the one in C. `make demo` takes what is there.
VIRTIOFSD ?= rust
# The guest's kernel: source is built from Debian 12's source with hack/guest-kernel.config;
# debian is the distribution's own, which other distributions get. `make demo` takes what is there.
KERNEL ?= $(if $(shell grep '^VERSION_CODENAME=bookworm' /etc/os-release 2>/dev/null),source,debian)
# The containerds that tests run with beside the newest: the distribution's, and
# those with a module in tools.
OLDER    = debian 1.7 2.0 2.1 2.2 2.3
# How long each fuzz target runs: inputs (x), or a time, at whose end the tool now
# and then fails a target by its own deadline.
FUZZTIME ?= 50000x

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

BIN     := $(BUILD)/bin
STEP    := hack/step.sh
STAMP   := github.com/containerd/containerd/v2/version
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false
SHIM_LD := -s -w -X $(STAMP).Version=$(VERSION) -X $(STAMP).Revision=$(REVISION) -X $(STAMP).Package=github.com/ccv2/containerd-shim-ccv2
MAIN_LD := -s -w -X main.version=$(VERSION)

##@ See it run

demo: deps build guest-there stack $(BUILD)/busybox.tar ## run a busybox container in a VM, through a private containerd
	@hack/demo.sh demo $(BUILD)

shell: deps build guest-there stack $(BUILD)/busybox.tar ## the same with a shell on this terminal
	@hack/demo.sh shell $(BUILD)

##@ Build

deps: ## get QEMU, virtiofsd, the guest's kernel and busybox from the distribution
	@$(STEP) "get what is missing from the distribution" hack/deps.sh run $(BUILD)

deps-test: deps ## get what the tests need in addition
	@$(STEP) "get what the tests need from the distribution" hack/deps.sh test $(BUILD)

build: ## build the three binaries
	@$(STEP) "build containerd-shim-ccv2, ccv2-agent and ccv2" $(MAKE) --no-print-directory binaries

binaries:
	@mkdir -p $(BIN)
	@$(GOBUILD) -tags no_grpc -ldflags "$(SHIM_LD)" -o $(BIN)/ ./cmd/containerd-shim-ccv2
	@$(GOBUILD) -tags urfave_cli_no_template -ldflags "$(MAIN_LD)" -o $(BIN)/ ./cmd/ccv2-agent ./cmd/ccv2 ./cmd/ccv2-exec
	@ln -sf containerd-shim-ccv2 $(BIN)/containerd-shim-cc-v2

guest: deps build crun-static guest-kernel-$(KERNEL) ## build the guest's kernel (10 minutes, once; KERNEL=debian takes the distribution's) and image
	@$(STEP) "build the guest's kernel and image" hack/guest.sh $(BUILD) $(KERNEL)

guest-9p: deps build crun-static ## the same with a kernel that has 9p, for share.type "9p"
	@$(STEP) "get a kernel with 9p from the distribution" hack/deps.sh kernel-9p $(BUILD)
	@$(STEP) "build the guest's kernel and image with 9p" hack/guest.sh $(BUILD) 9p

# The same with a kernel that is there.
guest-there:
	@$(MAKE) --no-print-directory guest KERNEL=$(if $(filter file,$(origin KERNEL)),$(if $(wildcard $(BUILD)/kernel-source/lib),source,debian),$(KERNEL))

guest-kernel-debian: deps
	@$(if $(filter file,$(origin KERNEL)),echo "    the guest gets the distribution's kernel: its own is built from the source of Debian 12")
guest-kernel-source: $(BUILD)/kernel-source/lib

$(BUILD)/kernel-source/lib: hack/build-kernel.sh hack/guest-kernel.config $(wildcard hack/kernel-*.patch)
	@$(STEP) "get what building a kernel needs from the distribution" hack/deps.sh kernel $(BUILD)
	@$(STEP) "build the guest's own kernel" hack/build-kernel.sh $(BUILD)/kernel-source
	@touch $@

crun-static: $(BUILD)/crun-static/crun

$(BUILD)/crun-static/crun: hack/build-crun.sh hack/debsource.sh hack/crun-exec-terminal.patch hack/crun-dangling-symlink.patch hack/crun-exec-failure.patch
	@$(STEP) "get what building crun needs from the distribution" hack/deps.sh crun $(BUILD)
	@$(STEP) "build a static crun for the guest" hack/build-crun.sh $(BUILD)/crun-static
	@touch $@

virtiofsd: $(BUILD)/virtiofsd/virtiofsd ## build the file server
virtiofsd-rust: virtiofsd
virtiofsd-debian: deps

$(BUILD)/virtiofsd/virtiofsd: hack/build-virtiofsd.sh $(wildcard hack/virtiofsd-*.patch)
	@$(STEP) "get what building virtiofsd needs from the distribution" hack/deps.sh virtiofsd $(BUILD)
	@$(STEP) "build virtiofsd" hack/build-virtiofsd.sh $(BUILD)/virtiofsd
	@touch $@

stack: $(BIN)/containerd $(BIN)/ctr ## build containerd and ctr

stack-test: stack $(BIN)/containerd-shim-runc-v2 $(BIN)/runc ## build runc and its shim, to compare with

$(BIN)/containerd $(BIN)/ctr $(BIN)/containerd-shim-runc-v2: tools/stack/go.mod tools/stack/go.sum
	@mkdir -p $(BIN)
	@$(STEP) "build $(@F)" env CGO_ENABLED=0 $(GO) -C tools/stack build -tags no_btrfs -trimpath -buildvcs=false \
		-ldflags "-s -w" -o $(abspath $@) github.com/containerd/containerd/v2/cmd/$(@F)
	@touch $@

$(BUILD)/containerd-debian/containerd:
	@$(STEP) "download the distribution's containerd" hack/deps.sh containerd $(BUILD)
	@touch $@

$(BUILD)/containerd-%/containerd: tools/containerd-%/go.mod tools/containerd-%/go.sum
	@mkdir -p $(@D)
	@$(STEP) "build containerd $*" env CGO_ENABLED=0 $(GO) -C tools/containerd-$* build -tags no_aufs,no_btrfs,no_devmapper,no_zfs \
		-trimpath -buildvcs=false -ldflags "-s -w" -o $(abspath $(@D))/ tool
	@touch $@

client-nerdctl: $(BUILD)/nerdctl/nerdctl
client-docker: $(BUILD)/docker/dockerd

# The client of Docker has no go.mod, and its packages the oldest language.
# Without the discovery of clouds, half of which the module is.
$(BUILD)/prometheus/prometheus: tools/prometheus/go.mod tools/prometheus/go.sum
	@mkdir -p $(@D)
	@$(STEP) "build Prometheus" env CGO_ENABLED=0 $(GO) -C tools/prometheus build -tags remove_all_sd -trimpath -buildvcs=false -ldflags "-s -w" -o $(abspath $(@D))/ tool
	@touch $@

e2e-prometheus: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar $(BUILD)/prometheus/prometheus ## a Prometheus scrapes pods, with the rules and the dashboard of deploy; needs root
	@$(STEP) "Prometheus" env CCV2_PROMETHEUS=$(abspath $(BUILD))/prometheus hack/e2e.sh $(BUILD) -tags e2e,prometheus -run 'TestPrometheus|TestRules'

$(BUILD)/collector/collector: tools/collector/go.mod tools/collector/go.sum tools/collector/main.go
	@mkdir -p $(@D)
	@$(STEP) "build OpenTelemetry's collector" env CGO_ENABLED=0 $(GO) -C tools/collector build -trimpath -buildvcs=false -ldflags "-s -w" -o $(abspath $@) .

e2e-collector: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar $(BUILD)/collector/collector ## containerd and the shims send spans through OpenTelemetry's collector; needs root
	@$(STEP) "OpenTelemetry's collector" env CCV2_COLLECTOR=$(abspath $(BUILD))/collector/collector hack/e2e.sh $(BUILD) -run 'TestSpans'

$(BUILD)/nerdctl/nerdctl $(BUILD)/docker/dockerd: $(BUILD)/%: tools/nerdctl/go.mod tools/nerdctl/go.sum tools/docker/go.mod tools/docker/go.sum
	@mkdir -p $(@D)
	@$(STEP) "get what clients need from the distribution" hack/deps.sh clients $(BUILD)
	@$(STEP) "build $(notdir $(@D))" env CGO_ENABLED=0 $(GO) -C tools/$(notdir $(@D)) build -trimpath -buildvcs=false -ldflags "-s -w" \
		-gcflags='github.com/docker/cli/...=-lang=go1.26' -o $(abspath $(@D))/ tool
	@touch $@

$(BIN)/runc: tools/stack/go.mod tools/stack/go.sum
	@mkdir -p $(BIN)
	@$(STEP) "get what building runc needs from the distribution" hack/deps.sh runc $(BUILD)
	@$(STEP) "build runc" env CGO_ENABLED=1 $(GO) -C tools/stack build -tags seccomp -trimpath -buildvcs=false \
		-ldflags "-s -w" -o $(abspath $@) github.com/opencontainers/runc
	@touch $@

$(BUILD)/busybox.tar: $(wildcard test/ociimage/*.go test/ociimage/mkimage/*.go) | deps
	@$(STEP) "build the busybox image" $(GO) run -buildvcs=false ./test/ociimage/mkimage $(BUILD)/busybox/bin/busybox $@

##@ Test

test: lint unit fuzz e2e ## all of the following

lint: deps-test $(BIN)/golangci-lint $(BIN)/gofumpt ## linters, formatting, shell scripts
	@$(STEP) "lint" hack/lint.sh $(BIN)

unit: deps-test guest guest-9p virtiofsd ## unit tests with the race detector, those of the agent and of QEMU in VMs
	@$(STEP) "unit tests" env CGO_ENABLED=1 PATH="$(abspath $(BUILD))/busybox/bin:$$PATH" $(GO) run -buildvcs=false ./test/unit -race -shuffle=on -timeout 10m ./...
	@$(STEP) "unit tests of the suites" $(GO) -C test/suites test ./...

fuzz: ## run every fuzz target for FUZZTIME (inputs or seconds)
	@$(STEP) "fuzz every target for $(FUZZTIME)" hack/fuzz.sh $(FUZZTIME)

e2e: deps-test guest virtiofsd guest-9p stack-test $(BUILD)/busybox.tar $(BUILD)/containerd-1.7/containerd ## end to end on containerd and QEMU; needs root
	@$(STEP) "end-to-end tests" hack/e2e.sh $(BUILD) -p 2 -run '$(or $(RUN),.)'

e2e-full: ## the same with ten pods at once and 200 probes, once more with templates off, and with a spare VM, and then `make workloads` and `make distributions`
	@CCV2_FULL=1 $(MAKE) --no-print-directory e2e
	@CCV2_TEMPLATES=off $(MAKE) --no-print-directory e2e
	@CCV2_SPARE=1 $(MAKE) --no-print-directory e2e
	@$(MAKE) --no-print-directory workloads
	@$(MAKE) --no-print-directory distributions

$(BUILD)/pjdfstest/pjdfstest: hack/build-pjdfstest.sh
	@$(STEP) "get what building pjdfstest needs from the distribution" hack/deps.sh virtiofsd $(BUILD)
	@$(STEP) "build pjdfstest" hack/build-pjdfstest.sh $(@D)
	@touch $@

workloads: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar $(BUILD)/pjdfstest/pjdfstest ## databases, servers, compilers and backups on a Debian, beside runc; RUN=TestWorkloads/git; needs root
	@hack/deps.sh host $(BUILD)
	@$(STEP) "make a root file system of Debian" hack/debian.sh $(BUILD)/debian
	@CCV2_DEBIAN=$(abspath $(BUILD))/debian/root CCV2_PJDFSTEST=$(abspath $(BUILD))/pjdfstest/pjdfstest CCV2_CONTAINERDS= \
		$(STEP) "workloads beside runc" $(GO) -C test/e2e test -tags e2e,workloads -count=1 -timeout 45m -run '$(or $(RUN),.)' ./workloads

distributions: ## `make demo` and `make test` on a fresh Debian 12 and 13; DISTRO=trixie, TESTS="demo e2e RUN=TestName"; needs root
	@mkdir -p $(BUILD)
	@hack/deps.sh host $(BUILD)
	@hack/distributions.sh $(BUILD) '$(or $(DISTRO),bookworm trixie)' '$(or $(TESTS),demo test)'

e2e-containerds: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar $(OLDER:%=$(BUILD)/containerd-%/containerd) ## a short suite on every containerd that is supported; needs root
	@CCV2_CONTAINERDS="$(subst $() ,:,$(OLDER:%=$(abspath $(BUILD))/containerd-%) $(abspath $(BIN)))" \
		$(STEP) "end-to-end tests on each containerd" hack/e2e.sh $(BUILD) -v -run '^(TestReleases|TestUpgrade)$$'

e2e-host: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar ## a short suite on a Debian 13 with systemd and KVM, in a VM, with LAYOUT=unified and hybrid cgroups; needs root
	@hack/deps.sh host $(BUILD)
	@$(STEP) "end-to-end tests on a host in a VM" hack/host.sh $(BUILD) '$(RUN)' '$(LAYOUT)'

# What a cluster is made of: Kubernetes, and what kind's images have beside it.
KUBERNETES  = kubeadm kubectl kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler
KUBE_LD     = -s -w -X k8s.io/component-base/version.gitVersion=$(KUBE) -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(KUBE))) \
	-X k8s.io/component-base/version.gitTreeState=clean -X k8s.io/component-base/version.gitCommit=unknown -X k8s.io/component-base/version.buildDate=2026-01-01T00:00:00Z
KUBE       := $(shell sed -nE 's/^(require)?[[:space:]]+k8s.io\/kubernetes (v[^ ]*).*/\2/p' tools/kubernetes/go.mod 2>/dev/null)
KINDBIN    := $(BUILD)/kind/bin
KINDBUILD   = @mkdir -p $(KINDBIN) && $(STEP) "build $(@F)" env CGO_ENABLED=0 $(GO) -C tools/$(1) build -trimpath -buildvcs=false -ldflags "$(3)" -o $(abspath $@) $(2) && touch $@

$(KUBERNETES:%=$(KINDBIN)/%): tools/kubernetes/go.mod tools/kubernetes/go.sum
	$(call KINDBUILD,kubernetes,k8s.io/kubernetes/cmd/$(@F),$(KUBE_LD))
$(KINDBIN)/agnhost $(KINDBIN)/nonewprivs: tools/kubernetes/go.mod tools/kubernetes/go.sum
	$(call KINDBUILD,kubernetes,k8s.io/kubernetes/test/images/$(@F),-s -w)
$(KINDBIN)/kind: tools/kind/go.mod tools/kind/go.sum
	$(call KINDBUILD,kind,sigs.k8s.io/kind,-s -w)
$(KINDBIN)/etcd: tools/kind/go.mod tools/kind/go.sum
	$(call KINDBUILD,kind,go.etcd.io/etcd/server/v3,-s -w)
$(KINDBIN)/coredns: tools/kind/go.mod tools/kind/go.sum tools/kind/coredns/main.go
	$(call KINDBUILD,kind,./coredns,-s -w)
$(KINDBIN)/local-path-provisioner: tools/kind/go.mod tools/kind/go.sum
	$(call KINDBUILD,kind,github.com/rancher/local-path-provisioner,-s -w)
$(KINDBIN)/metrics-server: tools/kind/go.mod tools/kind/go.sum
	$(call KINDBUILD,kind,sigs.k8s.io/metrics-server/cmd/metrics-server,-s -w)
# Static, as the nodes' C library is not this machine's.
$(KINDBIN)/runc: tools/stack/go.mod tools/stack/go.sum
	@mkdir -p $(KINDBIN)
	@$(STEP) "get what building runc needs from the distribution" hack/deps.sh runc $(BUILD)
	@$(STEP) "build a static runc" env CGO_ENABLED=1 $(GO) -C tools/stack build -tags seccomp,osusergo,netgo -trimpath -buildvcs=false \
		-ldflags "-s -w -linkmode external -extldflags -static" -o $(abspath $@) github.com/opencontainers/runc
	@touch $@

kind-node: deps-test stack-test client-docker $(addprefix $(KINDBIN)/,$(KUBERNETES) agnhost nonewprivs kind etcd coredns local-path-provisioner metrics-server runc)
	@hack/deps.sh kind $(BUILD)
	@$(STEP) "build busybox" hack/build-busybox.sh $(BUILD)/suites/busybox
	@$(STEP) "make the nodes' image" hack/kind-node.sh $(BUILD)

e2e-kind: kind-node guest virtiofsd ## a cluster of kind with ccv2, and what its users do beside runc; SHORT=1, RUN=TestRows/exec; needs root or a Docker Engine
	@hack/deps.sh dist $(BUILD)
	@$(STEP) "make the bundle" $(GO) run -buildvcs=false ./hack/dist -build $(BUILD) -version e2e -time 1700000000 -out $(BUILD)/kind/dist
	@$(STEP) "make a cluster of kind" hack/kind.sh up $(BUILD)
	@status=0; CCV2_SHORT=$(SHORT) $(STEP) "Kubernetes beside runc" $(GO) -C test/e2e test -tags kind -exec '$(abspath hack/kind.sh) run $(abspath $(BUILD))' \
		-count=1 -timeout 55m -parallel 3 -run '$(or $(RUN),.)' ./kind || status=$$?; \
		$(STEP) "delete it, and look for what is left" hack/kind.sh down $(BUILD) || status=$$?; exit $$status

$(BUILD)/kind/tests/ginkgo: tools/kubernetes/go.mod tools/kubernetes/go.sum
	@mkdir -p $(@D) && $(STEP) "build ginkgo" env CGO_ENABLED=0 $(GO) -C tools/kubernetes build -trimpath -buildvcs=false -ldflags "-s -w" -o $(abspath $@) github.com/onsi/ginkgo/v2/ginkgo && touch $@
$(BUILD)/kind/tests/nodeconformance.test: tools/kubernetes/go.mod tools/kubernetes/go.sum tools/kubernetes/nodeconformance/node_test.go
	@mkdir -p $(@D) && $(STEP) "build Kubernetes' end-to-end tests" env CGO_ENABLED=0 $(GO) -C tools/kubernetes test -c -trimpath -buildvcs=false -ldflags "-s -w" -o $(abspath $@) ./nodeconformance && touch $@

e2e-kind-conformance: kind-node guest virtiofsd $(BUILD)/kind/tests/ginkgo $(BUILD)/kind/tests/nodeconformance.test ## Kubernetes' NodeConformance with ccv2 and with runc on a cluster of kind, docs/conformance.md; RUN=, RUNTIMES=ccv2; needs what e2e-kind does
	@hack/deps.sh dist $(BUILD)
	@$(STEP) "make the bundle" $(GO) run -buildvcs=false ./hack/dist -build $(BUILD) -version e2e -time 1700000000 -out $(BUILD)/kind/dist
	@$(STEP) "make a cluster of kind" hack/kind.sh up $(BUILD)
	@status=0; for runtime in $(or $(RUNTIMES),ccv2 runc); do \
		$(STEP) "NodeConformance with $$runtime" hack/kind.sh run $(BUILD) $(abspath hack/kind-conformance.sh) $(abspath $(BUILD)) $$runtime '$(RUN)' || status=$$?; done; \
		$(STEP) "delete it, and look for what is left" hack/kind.sh down $(BUILD) || status=$$?; exit $$status

conformance: deps-test guest virtiofsd stack-test $(if $(SUITE)$(RUN),,e2e-containerds) ## third-party test suites with runc and ccv2, docs/conformance.md; SUITE=, RUN=; needs root
	@mkdir -p $(BUILD)/suites
	@[ -n '$(filter-out pjdfstest,$(SUITE))$(if $(SUITE),,$(RUN))' ] || $(MAKE) --no-print-directory workloads RUN=TestPjdfstest
	@[ '$(SUITE)' = pjdfstest ] || $(STEP) "conformance" $(GO) -C test/suites run . -build $(abspath $(BUILD)) -suite '$(SUITE)' -run '$(RUN)'

bench: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar ## benchmarks, for docs/performance.md; CHART=docs/start.svg draws the phases of a start; needs root
	@$(STEP) "benchmarks" env CCV2_CHART='$(if $(CHART),$(abspath $(CHART)))' hack/e2e.sh $(BUILD) -run '^$$' -bench '$(or $(RUN),.)' -benchtime '$(or $(BENCHTIME),1x)'

bench-host: deps-test guest virtiofsd stack-test $(BUILD)/busybox.tar ## start-up and memory on a Debian 13 with KVM, in a VM, where host and guest run at one speed; needs root
	@$(STEP) "benchmarks on a host in a VM" env BENCH='$(or $(RUN),Start|Memory)' BENCHTIME='$(or $(BENCHTIME),3x)' hack/host.sh $(BUILD) '' unified

dist: deps build guest virtiofsd ## an archive with all that a host needs, QEMU and its libraries among it
	@hack/deps.sh dist $(BUILD)
	@$(STEP) "make the bundle" hack/dist.sh $(BUILD) '$(VERSION)'

dist-test: dist stack-test $(BUILD)/busybox.tar ## try it on hosts with none of its libraries, and with Docker, nerdctl and kind's nodes after make client-docker client-nerdctl; needs root
	@$(STEP) "the bundle on an empty host" hack/bundle-test.sh $(BUILD)
	@[ ! -x $(BUILD)/docker/dockerd ] || $(STEP) "the bundle with Docker Engine" hack/bundle-engine-test.sh $(BUILD)
	@hack/deps.sh host $(BUILD)
	@$(STEP) "make a root file system of Debian" hack/debian.sh $(BUILD)/debian
	@$(STEP) "the bundle on Debian 12" hack/bundle-test.sh $(BUILD) $(BUILD)/debian/root
	@$(STEP) "make a root file system of Debian 13" hack/debian.sh $(BUILD)/debian-trixie kmod trixie
	@$(STEP) "the bundle on Debian 13" hack/bundle-test.sh $(BUILD) $(BUILD)/debian-trixie/root

dist-test-host: dist stack $(BUILD)/busybox.tar ## try it on a Debian 13 with systemd and KVM, in a VM; needs root
	@hack/deps.sh host $(BUILD)
	@$(STEP) "the bundle on a host in a VM" hack/host.sh $(BUILD) '' bundle

dist-bench: dist stack $(BUILD)/busybox.tar ## `ctr run … true` from the bundle, beside the distribution's QEMU; PAIRS=20; needs root
	@$(STEP) "the bundle beside the distribution's QEMU" hack/bundle-bench.sh $(BUILD) $(PAIRS)

generate: ## turn .proto files into code, which is checked in; needs protoc
	@$(STEP) "generate code" hack/generate.sh

fmt: $(BIN)/gofumpt $(BIN)/golangci-lint ## format all Go files
	@$(BIN)/golangci-lint fmt
	@for mod in test/*/go.mod; do (cd "$$(dirname "$$mod")" && $(abspath $(BIN))/golangci-lint fmt) || exit; done # their own imports go last

$(BIN)/golangci-lint $(BIN)/gofumpt: tools/lint/go.mod tools/lint/go.sum
	@mkdir -p $(BIN)
	@$(STEP) "build the linters" env CGO_ENABLED=0 $(GO) -C tools/lint build -trimpath -buildvcs=false -ldflags "-s -w" -o $(abspath $(BIN))/ tool
	@touch $(BIN)/golangci-lint $(BIN)/gofumpt

##@ Install and remove

install: virtiofsd-$(VIRTIOFSD) guest-kernel-$(KERNEL) ## install below PREFIX what `make build guest` has made, with that KERNEL, the file server, and /etc/ccv2/config.toml
	@hack/install.sh $(BUILD) "$(DESTDIR)" "$(PREFIX)" $(KERNEL)

clean: ## remove everything that was built; keeps what was downloaded
	rm -rf $(BIN) $(BUILD)/guest $(BUILD)/guest-9p $(BUILD)/demo $(BUILD)/busybox.tar

distclean: ## remove BUILD
	rm -rf $(BUILD)

help: ## list targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_.\/-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: generate demo shell deps deps-test build binaries guest guest-there guest-kernel-debian guest-kernel-source guest-9p crun-static virtiofsd virtiofsd-rust virtiofsd-debian stack stack-test client-nerdctl client-docker \
	test lint unit fuzz e2e e2e-full workloads e2e-containerds e2e-prometheus e2e-collector e2e-host distributions kind-node e2e-kind e2e-kind-conformance conformance bench bench-host dist dist-test dist-test-host dist-bench fmt install clean distclean help
