#!/usr/bin/env bash
# The same load on chopmark dev with one member, with four, and on the native stack, one after the other on
# this machine. Each starts from an empty folder and is stopped at the end, also when this is interrupted.
# Then, on the native stack, what a tenant at 20 times its quota does to another's latency.
# Usage: loadtest/compare.sh DIR [--rate N] [--seconds S] [--batch-seconds S]
#   DIR              must not exist; removed at the end but for NAME.SCENARIO.txt, the figures
#   --rate           single records a second (default: 400)
#   --seconds        of single records (default: 30)
#   --batch-seconds  of batches of 1000, as fast as four connections allow (default: 10)
# CHOPMARK and CHOPMARK_LOADTEST name the binaries (default: target/release). Ports as stack.sh says, from 27000 on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { sed -n '2,10s/^# //p' "$0" >&2; exit 64; }
dir=${1:-} rate=400 seconds=30 batch_seconds=10
[[ -n $dir && $dir != -* ]] || usage
shift
while [ $# -gt 0 ]; do
    case $1 in
    --rate) rate=${2:?--rate needs a number}; shift 2 ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --batch-seconds) batch_seconds=${2:?--batch-seconds needs a number}; shift 2 ;;
    *) usage ;;
    esac
done
[ ! -e "$dir" ] || { echo "compare: $dir is there already" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-$here/../target}/release
export CHOPMARK=${CHOPMARK:-$target/chopmark}
loadtest=${CHOPMARK_LOADTEST:-$target/chopmark-loadtest}
for program in "$CHOPMARK" "$loadtest"; do
    [ -x "$program" ] || { echo "compare: no $program; build with --release first" >&2; exit 1; }
done
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# PostgreSQL runs as a user of its own.
chmod 711 "$dir"

dev=
finish() {
    [ -z "$dev" ] || { kill -TERM "$dev" 2>/dev/null && wait "$dev" || true; }
    dev=
    [ ! -d "$dir/run/stack" ] || "$here/../deploy/native/stack.sh" stop --data "$dir/run/stack" >&2
    rm -rf "${dir:?}/run"
}
trap finish EXIT
trap 'exit 130' INT TERM

# measure NAME FOLDER: both scenarios; a table's column stands in each file.
measure() {
    echo "== $1: $rate single records/s for $seconds s"
    "$loadtest" --dev "$2" --scenario single --rate "$rate" --seconds "$seconds" | tee "$dir/$1.single.txt"
    echo "== $1: batches of 1000 for $batch_seconds s"
    "$loadtest" --dev "$2" --scenario batch --seconds "$batch_seconds" --connections 4 --sample 5 | tee "$dir/$1.batch.txt"
}

for members in 1 4; do
    mkdir -m 711 "$dir/run"
    "$CHOPMARK" dev --data "$dir/run/dev" --members $members >"$dir/dev-$members.log" 2>&1 </dev/null &
    dev=$!
    tries=0
    until [ -s "$dir/run/dev/dev.json" ]; do
        kill -0 "$dev" 2>/dev/null && [ $tries -lt 300 ] || { tail -3 "$dir/dev-$members.log" >&2; exit 1; }
        tries=$((tries + 1))
        sleep 0.2
    done
    measure "dev-$members" "$dir/run/dev"
    finish
done
mkdir -m 711 "$dir/run"
"$here/../deploy/native/stack.sh" start --data "$dir/run/stack" >"$dir/stack.log"
measure native "$dir/run/stack"

# A tenant with a quota, and its key.
stack=$dir/run/stack quota=50
approvals=()
for key in "$stack"/net/*/keys/governance.pem; do approvals+=(--approve-with "$key"); done
"$CHOPMARK" admin tenant create ten_neighbour --config "$stack/admin.toml" "${approvals[@]}"
(umask 077 && "$CHOPMARK" admin key create --tenant ten_neighbour --config "$stack/admin.toml" >"$stack/neighbour.key")
"$CHOPMARK" admin quota set ten_neighbour --requests-per-second $quota --config "$stack/admin.toml"
echo "== native: $((rate / 4)) single records/s, alone and beside $((20 * quota)) requests/s of a tenant that may have $quota"
"$loadtest" --dev "$stack" --rate $((rate / 4)) --seconds "$seconds" \
    --neighbour "$stack/neighbour.key" --neighbour-rate $((20 * quota)) | tee "$dir/native.neighbour.txt"
