#!/usr/bin/env bash
# Checks deploy/compose and deploy/helm without Docker and without a cluster: lints and renders the chart
# over several values, compares what comes out with the schemas of Kubernetes, refuses bad values, loads the
# Compose file, and looks at every pod and service for rights that it should not have.
# Usage: scripts/check-deploy.sh
# The tools are built once, from the Go proxy, into the user's cache; DEPLOY_TOOLS names another folder.
set -euo pipefail
cd "$(dirname "$0")/.."

helm_version=v4.3.1 kubeconform_version=v0.8.0
tools=${DEPLOY_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/deploy-tools}
# Where setup.sh puts Go if there is none.
export PATH="$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/go/bin"
checks=deploy/check chart=deploy/helm/chopmark
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
say() { echo "deploy: $*"; }
fail() { echo "deploy: $*" >&2; exit 1; }

# tool NAME STAMP COMMAND...: builds $tools/NAME-STAMP with the command, unless it is there. GOBIN is where
# the command leaves it, under whatever name.
tool() {
    local target=$tools/$1-$2 name=$1
    shift 2
    [ -x "$target" ] && return
    say "building $name into $tools; the first time takes minutes"
    mkdir -p "$tools"
    local built
    built=$(mktemp -d "$tools/building.XXXXXX")
    # Three to ten minutes for Helm, by what else runs; more means that something hangs.
    if ! GOBIN=$built CGO_ENABLED=0 GOFLAGS=-trimpath timeout 1800 "$@" >"$built/log" 2>&1; then
        cat "$built/log" >&2
        rm -rf "$built"
        fail "could not build $name"
    fi
    rm "$built/log"
    # Named last, so that what has a name is whole.
    mv "$built"/* "$target"
    rmdir "$built"
}
# The sums of its dependencies are in go.sum; those of the others are compared with Go's checksum database.
compose_stamp=$(cat "$checks"/compose/* | sha256sum | cut -c1-16)
tool kubeconform "$kubeconform_version" go install "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform_version"
tool compose "$compose_stamp" go -C "$checks/compose" install .
tool helm "$helm_version" go install "helm.sh/helm/v4/cmd/helm@$helm_version"
helm() {
    # Nothing of the user's: no plugins, no repositories, no cluster.
    env HELM_CONFIG_HOME="$scratch/helm" HELM_DATA_HOME="$scratch/helm" HELM_CACHE_HOME="$scratch/helm" KUBECONFIG=/dev/null \
        "$tools/helm-$helm_version" "$@"
}
kubeconform() {
    local schemas=$checks/schemas
    # shellcheck disable=SC2016
    "$tools/kubeconform-$kubeconform_version" -strict -kubernetes-version "$1" \
        -schema-location "$schemas/{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json" \
        -schema-location "$schemas/monitoring/{{.ResourceKind}}{{.KindSuffix}}.json" "${@:2}"
}

say "the checks themselves can fail"
"$checks/policy.py" selftest "$checks/bad.yaml"

say "the chart, for each of $checks/values and the defaults"
versions=("$checks"/schemas/v*)
versions=("${versions[@]##*/v}")
for values in /dev/null "$checks"/values/*.yaml; do
    name=$(basename "$values" .yaml)
    helm lint --strict --quiet "$chart" --values "$values"
    helm template release "$chart" --namespace chopmark --values "$values" >"$scratch/$name.yaml"
    for version in "${versions[@]}"; do kubeconform "$version" "$scratch/$name.yaml"; done
    "$checks/policy.py" helm <"$scratch/$name.yaml"
    "$checks/contents.py" "$scratch/$name.yaml"
    # What is rendered twice is the same: a checksum in it restarts pods.
    helm template release "$chart" --namespace chopmark --values "$values" | cmp - "$scratch/$name.yaml"
done

"$checks/contents.py" "$chart/values.yaml"

say "manifests that Kubernetes would refuse are refused here"
sed 's/terminationGracePeriodSeconds/terminationGraceSeconds/' "$scratch/null.yaml" >"$scratch/misspelt.yaml"
sed 's/maxUnavailable: 1$/maxUnavailable: [1]/' "$scratch/null.yaml" >"$scratch/mistyped.yaml"
sed 's/^kind: Deployment/kind: Deployments/' "$scratch/null.yaml" >"$scratch/unknown.yaml"
for bad in misspelt mistyped unknown; do
    ! kubeconform "${versions[0]}" "$scratch/$bad.yaml" >"$scratch/$bad.log" || fail "kubeconform takes $bad.yaml"
done
grep -q terminationGraceSeconds "$scratch/misspelt.log" || fail "another reason: $(cat "$scratch/misspelt.log")"

say "values that have to be refused"
HELM="$tools/helm-$helm_version" "$checks/refused.py" "$chart" "$checks"

say "versions that have to be the same"
same() { [ "$2" = "$3" ] || fail "$1: $2 here, $3 there"; }
one() { sed -nE "s|$2|\\1|p" "$1" | sort -u; }
version=$(one Cargo.toml '^version = "(.*)"$')
same "chart and program" "$(one $chart/Chart.yaml '^appVersion: (.*)$')" "$version"
same "Compose and program" "$(one deploy/compose/compose.yaml '^ *image: chopmark:(.*)$')" "$version"
same "Kafka of Compose and of the tests" "$(one deploy/compose/compose.yaml '^ *image: apache/kafka:(.*)$')" \
    "$(one deploy/native/kafka/pom.xml '.*<version>([0-9.]*)</version>.*' | grep -Fx "$(one deploy/compose/compose.yaml '^ *image: apache/kafka:(.*)$')")"
same "Rust of the image and of the workspace" "$(one deploy/Dockerfile '^FROM rust:([0-9]*\.[0-9]*)\..*')" "$(one Cargo.toml '^rust-version = "(.*)"$')"
same "members' addresses" "$(one deploy/compose/compose.yaml '.*ipv4_address: ([0-9.]*).*')" "$(one deploy/compose/init.sh '.*--member [a-z.]*=([0-9.]*):26600.*')"

say "alert rules"
promtool check rules "$chart/files/rules.yaml" >"$scratch/promtool" || { cat "$scratch/promtool" >&2; fail "promtool check rules"; }
(cd "$checks" && promtool test rules rules.test.yaml) >"$scratch/promtool" || { cat "$scratch/promtool" >&2; fail "promtool test rules"; }
promtool check config --syntax-only deploy/compose/prometheus.yml >"$scratch/promtool" || { cat "$scratch/promtool" >&2; fail "promtool check config"; }
"$checks/metrics.py" || fail "metrics, alerts, dashboards and their pages"

say "dashboards"
deploy/grafana/make.py --check

say "deploy/compose"
export CHOPMARK_UID=10001 CHOPMARK_GID=10001
"$tools/compose-$compose_stamp" deploy/compose/compose.yaml >"$scratch/compose.json"
"$checks/contents.py" deploy/compose/chopmark.toml
"$checks/policy.py" compose <"$scratch/compose.json"
sed 's/condition: service_healthy/condition: service_helthy/' deploy/compose/compose.yaml >"$scratch/condition.yaml"
sed 's/^  ids.key: .*//' deploy/compose/compose.yaml >"$scratch/secret.yaml"
sed 's/^  kafka: {}//; s/^volumes:$//' deploy/compose/compose.yaml >"$scratch/volume.yaml"
for bad in condition secret volume; do
    ! "$tools/compose-$compose_stamp" "$scratch/$bad.yaml" >/dev/null 2>&1 || fail "the Compose file is taken with a fault in its $bad"
done
! env -u CHOPMARK_UID "$tools/compose-$compose_stamp" deploy/compose/compose.yaml >/dev/null 2>&1 || fail "services run as nobody in particular"

say "the scripts inside"
"$checks/scripts.sh"
say "all well"
