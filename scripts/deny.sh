#!/usr/bin/env bash
# Licences, sources and bans of every dependency (deny.toml). Says so aloud where cargo-deny is
# not installed: building it takes longer than all tests. `--install` builds it first;
# `--advisories` also asks the advisory database, which is not reachable from everywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = "--install" ]; then
    cargo install --locked --quiet cargo-deny
fi
if ! command -v cargo-deny >/dev/null; then
    echo "deny: SKIPPED, cargo-deny is not installed (scripts/deny.sh --install)"
    exit 0
fi
checks=(bans licenses sources)
[ "${1:-}" = "--advisories" ] && checks+=(advisories)
cargo deny --locked check "${checks[@]}"
