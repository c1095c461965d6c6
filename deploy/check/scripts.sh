#!/usr/bin/env bash
# The scripts that run in containers, without containers: the chart's member.sh and the image's probe.
# Usage: deploy/check/scripts.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
server=''
trap '[ -z "$server" ] || kill "$server"; rm -rf "$scratch"' EXIT
fail() { echo "scripts: $*" >&2; exit 1; }

# What a pod has: a Secret, a configuration, two volumes, and the Secret for the first start.
export KEYS=$scratch/secret CONFIG=$scratch/node.toml DATA=$scratch/data GUARD=$scratch/guard SEED=$scratch/seed MEMBER=$scratch/run/member
mkdir -p "$KEYS" "$DATA" "$GUARD" "$SEED" "$scratch/run" "$scratch/made/node/log"
for key in log cosigner validator statement network; do echo "$key" >"$KEYS/$key.pem"; done
echo rotated >"$KEYS/rotation-1.log.pem"
# As Kubernetes mounts them for a group.
chmod 0440 "$KEYS"/*.pem
echo '[node]' >"$CONFIG"
echo '{}' >"$scratch/made/node/genesis.json"
tar --create --directory "$scratch/made" --file "$SEED/node.tar" node
echo fresh >"$SEED/guard"

member() { sh deploy/helm/chopmark/files/member.sh; }
refuses() {
    local what=$1 says=$2
    shift 2
    ! "$@" 2>"$scratch/said" || fail "$what was not refused"
    grep -q "$says" "$scratch/said" || fail "$what was refused for another reason: $(cat "$scratch/said")"
}
mode() { stat -c %a "$1"; }

(unset SEED; refuses "a start without data and without a seed" "very first start" member)
[ ! -e "$GUARD/guard" ] || fail "a refused start made a guard"
tar --create --directory "$scratch/made/node" --file "$scratch/other.tar" .
mkdir "$scratch/bad"
cp "$scratch/other.tar" "$scratch/bad/node.tar"
cp "$SEED/guard" "$scratch/bad/guard"
SEED=$scratch/bad refuses "a seed of another folder" "no node/genesis.json" member
[ ! -e "$GUARD/guard" ] || fail "a bad seed made a guard"

member
[ "$(mode "$MEMBER/keys")" = 700 ] && [ "$(mode "$MEMBER/keys/log.pem")" = 600 ] || fail "keys are open to others"
[ "$(cat "$MEMBER/keys/rotation-1/log.pem")" = rotated ] && [ "$(cat "$MEMBER/keys/log.pem")" = log ] || fail "a rotation is not where the node looks"
[ -s "$MEMBER/node/genesis.json" ] && [ "$(mode "$GUARD/guard")" = 600 ] || fail "the first start has no data"

echo signed >"$GUARD/guard"
echo block >"$DATA/node/blocks"
(unset SEED; rm -rf "$MEMBER"; member)
member
[ "$(cat "$GUARD/guard")" = signed ] && [ "$(cat "$MEMBER/node/blocks")" = block ] || fail "a later start touched data or guard"
mv "$DATA/node" "$scratch/kept"
refuses "a seed over a guard that has signed" "the guard remembers" member
[ "$(cat "$GUARD/guard")" = signed ] || fail "a refused start replaced the guard"
mv "$scratch/kept" "$DATA/node"
rm "$GUARD/guard"
refuses "data without their guard" "guard is missing" member
[ ! -e "$GUARD/guard" ] || fail "a guard was made for data that have a past"
# A first start that died between guard and data goes on.
rm -rf "$DATA/node"
cp "$SEED/guard" "$GUARD/guard"
mkdir "$DATA/seed"
member
[ -s "$MEMBER/node/genesis.json" ] || fail "a first start that was cut short does not go on"
rm -rf "$KEYS"
refuses "a pod without keys" "no keys" member

python3 - "$scratch/port" <<'END' &
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            return __import__("time").sleep(30)
        self.send_response(200 if self.path == "/health/live" else 503)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
open(sys.argv[1], "w").write(str(server.server_port))
server.serve_forever()
END
server=$!
for _ in $(seq 100); do [ -s "$scratch/port" ] && break; sleep 0.1; done
address=127.0.0.1:$(cat "$scratch/port")
deploy/image/probe "$address" || fail "a server that is well is not"
! deploy/image/probe "$address" /health/ready || fail "a server that answers 503 is well"
! deploy/image/probe "$address" /slow 1 || fail "a server that does not answer is well"
! deploy/image/probe 127.0.0.1:1 2>/dev/null || fail "nobody is well"
echo "scripts: member.sh and probe do as they should"
