#!/usr/bin/env bash
# The first command of the README: builds Chopmark, runs it, notarizes a real file, and verifies
# the receipt with two independent verifiers. Leaves the server running; run it again to go on.
# Usage: scripts/quickstart.sh [FILE]      (default: README.md)
set -euo pipefail
cd "$(dirname "$0")/.."

file=${1:-README.md}
run=${CHOPMARK_RUN_DIR:-$PWD/.run}
data=$run/data
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. Packages and build (the first time takes some minutes)"
scripts/setup.sh run
cargo build --locked --package chopmark
chopmark=${CARGO_TARGET_DIR:-$PWD/target}/debug/chopmark
mkdir -p "$run"

# A server of an earlier run is used again if it answers and runs this build; else it is replaced.
field() { jq -r ".$1" "$data/dev.json"; }
running() { [ -f "$data/dev.json" ] && kill -0 "$(field pid)" 2>/dev/null && curl -fsS "$(field base_url)/health/ready" >/dev/null 2>&1; }
if running && [ "/proc/$(field pid)/exe" -ef "$chopmark" ]; then
    say "2. The server of an earlier run is still there (pid $(field pid))"
else
    if [ -f "$data/dev.json" ]; then
        old=$(field pid)
        # Another program may have got the number meanwhile.
        [ "$(cat "/proc/$old/comm" 2>/dev/null)" = chopmark ] && kill "$old"
        for _ in $(seq 100); do kill -0 "$old" 2>/dev/null || break; sleep 0.1; done
    fi
    rm -f "$data/dev.json"
    # A folder of an earlier version keeps the number of members that it was born with.
    members=4
    [ ! -d "$data/node" ] || members=$(jq '.members | length' "$data/node/genesis.json")
    say "2. Starting a whole network on this machine: gateway, queue, database, committer, the nodes of $members members"
    setsid "$chopmark" dev --members "$members" --data "$data" >"$run/dev.log" 2>&1 </dev/null &
    for _ in $(seq 600); do running && break; sleep 0.1; done
    running || { echo "it did not start; the end of $run/dev.log:" >&2; tail -5 "$run/dev.log" >&2; exit 1; }
fi
base=$(field base_url) key=$(field api_key) policy=$(field policy_path)

say "3. A platform notarizes $file: only its digests leave this script"
sha256=$(sha256sum "$file" | cut -d' ' -f1)
sha3=$(openssl dgst -sha3-256 -r "$file" | cut -d' ' -f1)
body=$(jq -n --arg a "$sha256" --arg b "$sha3" --argjson size "$(stat -c %s "$file")" --arg title "$(basename "$file")" \
    '{digests: {sha256: $a, "sha3-256": $b}, size: $size, title: $title}')
# The same request gets the same record, however often this runs.
request=$(sha256sum <<<"$body" | cut -c1-32)
echo "   POST $base/v1/evidence   sha256 $sha256"
answer=$(curl -fsS "$base/v1/evidence" -H "Authorization: Bearer $key" -H "Idempotency-Key: quickstart-$request" \
    -H "Content-Type: application/json" -H "Prefer: wait=30" -d "$body")
id=$(jq -r .id <<<"$answer")
[ "$(jq -r .state <<<"$answer")" = committed ] || { echo "not committed in time: $answer" >&2; exit 1; }
jq -r '"   \(.id)\n   committed as leaf \(.entry.index) of the log, in block \(.block.height), at \(.block.time)"' <<<"$answer"

say "4. Anybody can check that offline: the file, its entry, the receipt, and a policy (whose signatures count)"
curl -fsS "$base/v1/evidence/$id/receipt" -H "Authorization: Bearer $key" -o "$run/receipt.tlog-proof"
curl -fsS "$base/v1/evidence/$id/entry" -H "Authorization: Bearer $key" -o "$run/entry.json"
sed 's/^/   | /' "$run/receipt.tlog-proof"
echo "   with chopmark verify:"
"$chopmark" verify "$file" --entry "$run/entry.json" --receipt "$run/receipt.tlog-proof" --policy "$policy" | sed 's/^/   /'
echo "   and with schemas/verifier/verify.sh, forty lines of shell over OpenSSL that share no code with it:"
schemas/verifier/verify.sh "$file" "$run/entry.json" "$run/receipt.tlog-proof" "$policy" | sed 's/^/   /'

say "5. One changed byte is noticed"
{ cat "$file"; printf x; } >"$run/changed"
"$chopmark" verify "$run/changed" --entry "$run/entry.json" --receipt "$run/receipt.tlog-proof" --policy "$policy" |
    tail -1 | sed 's/^/   /' || true

say "The server goes on: pid $(field pid), log $run/dev.log. Stop it with: kill $(field pid)"
court=$(jq -r '.nodes[1].read_url // empty' "$data/dev.json")
cat <<TEXT
Try next (the API key of this sandbox is in $data/dev.json):
   curl -s $base/v1/verify/sha256/$sha256 | jq     # what a court sees, without a key
   curl -s $base/v1/evidence -H "Authorization: Bearer $key" | jq     # your own records
   curl -s $base/log/checkpoint     # what the members signed
TEXT
[ -z "$court" ] || echo "   curl -s $court/v1/verify/sha256/$sha256 | jq     # the same from another member's own node"
