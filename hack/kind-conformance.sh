#!/bin/bash
# Runs what Kubernetes calls NodeConformance on the cluster that hack/kind.sh has made: the
# tests of Kubernetes' own end-to-end suite that a node has to pass. With ccv2 a policy of
# admission gives the tests' pods the RuntimeClass, unless they have one of their own or the network of
# the host, which no VM can have. The tests are not changed.
#
# usage: hack/kind.sh run BUILD-DIR hack/kind-conformance.sh BUILD-DIR ccv2|runc [FOCUS]
#   prints the counts and what failed; all that was said is in BUILD-DIR/kind/conformance-RUNTIME.
#   FOCUS is a regular expression for names of tests; SKIP one for those that are left out.
set -euo pipefail

build=$(cd "${1:?usage: hack/kind-conformance.sh BUILD-DIR RUNTIME [FOCUS]}" && pwd)
runtime=${2:?usage: hack/kind-conformance.sh BUILD-DIR RUNTIME [FOCUS]}
focus=${3:-}
out=$build/kind/conformance-$runtime
programs=$build/kind/tests
rm -rf "$out"
mkdir -p "$out"

policy() {
	cat <<-END
		apiVersion: admissionregistration.k8s.io/v1
		kind: MutatingAdmissionPolicy
		metadata: {name: runtime-class-of-tests}
		spec:
		  matchConstraints:
		    namespaceSelector: {matchExpressions: [{key: e2e-framework, operator: Exists}]}
		    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
		  matchConditions:
		    - {name: none-of-its-own, expression: "!has(object.spec.runtimeClassName)"}
		    - {name: not-the-network-of-the-host, expression: "!has(object.spec.hostNetwork) || !object.spec.hostNetwork"}
		  failurePolicy: Fail
		  reinvocationPolicy: Never
		  mutations:
		    - patchType: ApplyConfiguration
		      applyConfiguration: {expression: "Object{spec: Object.spec{runtimeClassName: '$runtime'}}"}
		---
		apiVersion: admissionregistration.k8s.io/v1
		kind: MutatingAdmissionPolicyBinding
		metadata: {name: runtime-class-of-tests}
		spec: {policyName: runtime-class-of-tests}
	END
}
# mutated reports whether the API server has taken the policy up, or has let it go.
mutated() { kubectl -n conformance-policy run probe --image=none --dry-run=server -o 'jsonpath={.spec.runtimeClassName}'; }
kubectl create namespace conformance-policy >/dev/null
kubectl label namespace conformance-policy e2e-framework=policy >/dev/null
trap 'kubectl delete namespace conformance-policy --wait=false >/dev/null; policy | kubectl delete --ignore-not-found -f - >/dev/null' EXIT
wanted=
if [ "$runtime" != runc ]; then
	wanted=$runtime
	policy | kubectl apply -f - >/dev/null
fi
tries=0
until [ "$(mutated 2>/dev/null || echo none)" = "$wanted" ]; do # its service account is made in the background, too
	[ $((tries += 1)) -lt 100 ] || {
		echo "kind-conformance: pods do not get the RuntimeClass \"$wanted\": $(mutated 2>&1)" >&2
		exit 1
	}
	sleep 0.3
done

# Names of tests are taken apart by ginkgo's own flags: all of them have to match.
status=0
(cd "$out" && "$programs/ginkgo" --procs=3 --no-color --keep-going --timeout=3h --output-dir="$out" --json-report=report.json \
	--label-filter=NodeConformance ${focus:+--focus="$focus"} --skip="${SKIP:-\[Slow\]}" \
	"$programs/nodeconformance.test" -- --provider=skeleton --kubeconfig="$KUBECONFIG" --num-nodes=2) >"$out/log" 2>&1 || status=$?
[ -s "$out/report.json" ] || {
	tail -n 40 "$out/log" >&2
	exit 1
}
jq -r --arg runtime "$runtime" '[.[].SpecReports[] | select(.LeafNodeType == "It") | {state: .State, why: .Failure.Message,
		name: ((.ContainerHierarchyTexts // []) + [.LeafNodeText] | join(" "))}]
	| "\($runtime): \(map(select(.state == "passed")) | length) pass, \(map(select(.state == "failed" or .state == "panicked" or .state == "timedout" or .state == "interrupted")) | length) fail, " +
	  "\(map(select(.state == "skipped" and (.why // "") != "")) | length) skip themselves",
	  (.[] | select(.state != "passed" and (.state != "skipped" or (.why // "") != "")) | "\(.state): \(.name): \(.why // "" | split("\n")[0])")' "$out/report.json"
exit "$status"
