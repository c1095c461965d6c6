#!/usr/bin/env bash
# Runs every check that a change must pass; `.ci/run` calls exactly this.
# Usage: scripts/test.sh [--long]   (--long: also the long fault and memory runs)
set -euo pipefail
cd "$(dirname "$0")/.."

unset LONG
if [ "${1:-}" = "--long" ]; then
    export LONG=1
else
    # Cases drawn by chance are the same in every ordinary run; a long run draws new ones.
    export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"
fi
step() { printf '\n== %s\n' "$*"; }

step "packages"
scripts/setup.sh test
# Where setup puts Go if there is none.
export PATH="$PATH:${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/go/bin"
# Where setup puts the reference libraries of Standard Webhooks.
export CHOPMARK_WEBHOOK_VERIFIERS="${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/webhooks-1"
step "formatting"
cargo fmt --all --check
step "shell scripts"
# verify.sh splits words on purpose, to stay within forty lines; the corpus below is its check.
shellcheck --severity=warning scripts/*.sh loadtest/*.sh tests/corpus/*.sh deploy/*/*.sh deploy/image/* deploy/helm/*/files/*.sh
step "image, Compose file and chart"
scripts/check-deploy.sh
step "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings
step "dependencies: licences, sources, bans"
scripts/deny.sh
step "no feature of the tests' in the binary"
features=$(cargo tree --locked --package chopmark --edges features,no-dev)
if grep -E 'feature "(unfiltered|byzantine)"' <<<"$features"; then
    echo "the binary that we ship would have these" >&2
    exit 1
fi
step "a real Kafka, PostgreSQL and Redis for the tests"
servers=$(mktemp -d /var/tmp/chopmark-test.XXXXXX)
# PostgreSQL runs as a user of its own where this is root's.
chmod 755 "$servers"
trap 'deploy/native/servers.sh stop --data "$servers" && rm -rf "$servers"' EXIT
# Ports below those that the system hands out; another run on this machine may have the first choice.
deploy/native/servers.sh start --data "$servers" --port-base $((20000 + RANDOM % 100 * 100)) kafka postgres redis ||
    { rm "$servers/port-base" && deploy/native/servers.sh start --data "$servers" --port-base $((20000 + RANDOM % 100 * 100)) kafka postgres redis; }
export CHOPMARK_TEST_SERVERS=$servers
step "tests"
cargo test --workspace --locked
step "V1 and V2 over the corpus of receipts"
tests/corpus/check.sh
