#!/usr/bin/env bash
# Four members of a sandbox network, each a process of its own on this machine, as four organisations
# would run them on four. For trying out what docs/runbooks/members.md describes.
# Usage: deploy/native/consortium.sh up | down | status   [DIR]      (default: .run/consortium)
# CHOPMARK names the binary (default: chopmark from PATH, else the one that cargo has built).
set -euo pipefail
cd "$(dirname "$0")/../.."

command=${1:-}
dir=${2:-.run/consortium}
members=(archive court notary operator)
chopmark=${CHOPMARK:-$(command -v chopmark || true)}
for built in "${CARGO_TARGET_DIR:-target}"/{release,debug}/chopmark; do
    [ -n "$chopmark" ] || [ ! -x "$built" ] || chopmark=$built
done
[ -x "$chopmark" ] || { echo "no chopmark to run: cargo build --release --package chopmark" >&2; exit 1; }

# Whether a member's node runs: the number in its file may be another program's by now.
running() {
    local pid
    # One that has ended and that nobody has waited for has no program any more.
    pid=$(cat "$dir/$1.pid" 2>/dev/null) && [[ $(readlink "/proc/$pid/exe") == */chopmark* ]]
}

up() {
    if [ ! -d "$dir" ]; then
        mkdir -p "$(dirname "$dir")"
        local port=26600 arguments=()
        for member in "${members[@]}"; do
            arguments+=(--member "$member.localhost=127.0.0.1:$port")
            port=$((port + 10))
        done
        "$chopmark" network init "$dir" --domain sandbox.localhost "${arguments[@]}"
    fi
    for member in "${members[@]}"; do
        running "$member" && continue
        setsid "$chopmark" node --data "$dir/$member.localhost" >>"$dir/$member.log" 2>&1 </dev/null &
        echo $! >"$dir/$member.pid"
    done
    for _ in $(seq 100); do
        "$chopmark" network status --data "$dir/operator.localhost" >/dev/null 2>&1 && break
        sleep 0.2
    done
    status
}

down() {
    for member in "${members[@]}"; do
        running "$member" || continue
        kill "$(cat "$dir/$member.pid")"
    done
    for member in "${members[@]}"; do
        while running "$member"; do sleep 0.1; done
        rm -f "$dir/$member.pid"
    done
}

status() {
    "$chopmark" network status --data "$dir/operator.localhost"
    sed -n 's|^read = "\(.*\)"|  read: http://\1/v1/network|p' "$dir"/*.localhost/node.toml
}

case $command in
up | down | status) "$command" ;;
*)
    sed -n '2,6s/^# //p' "$0" >&2
    exit 64
    ;;
esac
