#!/usr/bin/env bash
# A production deployment on this machine: the servers of servers.sh, four members' nodes, two
# committers, two gateways, a courier. For trying out and for tests: loopback only, a sandbox network, one broker.
# Usage: deploy/native/stack.sh start | stop | status [--data DIR] [--port-base N] [ROLE...]
#   ROLE         node-archive, node-court, node-notary, node-operator, committer-0, committer-1,
#                gateway-0, gateway-1, courier-0 of a stack that has been started (default: everything)
#   --data       everything (default: .run/stack); ROLE.log are the logs, dev.json says where to call
#   --port-base  asked for at the first start and kept with the data (default: 27000)
# Ports from N on: gateways +10 and +11 (health and metrics: +12 and +13), committers +14 and +15,
# the courier +16, nodes +100 to +133, servers as servers.sh says.
# CHOPMARK names the binary (default: chopmark from PATH, else the one that cargo has built).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { sed -n '2,12s/^# //p' "$0" >&2; exit 64; }
say() { echo "stack: $*"; }
fail() { echo "stack: $*" >&2; exit 1; }

command=${1:-}
[ $# -eq 0 ] || shift
members=(archive court notary operator)
all=()
for member in "${members[@]}"; do all+=("node-$member"); done
all+=(committer-0 committer-1 gateway-0 gateway-1 courier-0)
tenant=ten_native
dir=.run/stack base='' roles=()
while [ $# -gt 0 ]; do
    case $1 in
    --data) dir=${2:?--data needs a folder}; shift 2 ;;
    --port-base) base=${2:?--port-base needs a number}; shift 2 ;;
    *) [[ " ${all[*]} " == *" $1 "* ]] || usage; roles+=("$1"); shift ;;
    esac
done
case $command in start | stop | status) ;; *) usage ;; esac
[ "$command" != start ] || mkdir -p "$dir"
[ -d "$dir" ] || { say "nothing in $dir"; exit 0; }
dir=$(cd "$dir" && pwd)

chopmark=${CHOPMARK:-$(command -v chopmark || true)}
for built in "${CARGO_TARGET_DIR:-$here/../../target}"/{release,debug}/chopmark; do
    [ -n "$chopmark" ] || [ ! -x "$built" ] || chopmark=$built
done

# Whether a role runs: the number in its file may be another program's by now.
running() {
    local pid
    # One that has ended and that nobody has waited for has no program any more.
    pid=$(cat "$dir/$1.pid" 2>/dev/null) && [[ $(readlink "/proc/$pid/exe") == */chopmark* ]]
}

launch() {
    local role=$1
    case $role in
    node-*) set -- node --data "$dir/net/${role#node-}.localhost" ;;
    *) set -- "${role%-*}" --config "$dir/$role.toml" ;;
    esac
    running "$role" && return
    setsid "$chopmark" "$@" --log-format json >>"$dir/$role.log" 2>&1 </dev/null &
    echo $! >"$dir/$role.pid"
}

# Where a role says that it is well.
health() {
    local number
    case $1 in
    node-*)
        for number in "${!members[@]}"; do
            [ "node-${members[number]}" != "$1" ] || echo "http://127.0.0.1:$(port $((103 + 10 * number)))/health/live"
        done
        ;;
    committer-*) echo "http://127.0.0.1:$(port $((14 + ${1#*-})))/health/live" ;;
    courier-*) echo "http://127.0.0.1:$(port $((16 + ${1#*-})))/health/live" ;;
    gateway-*) echo "http://127.0.0.1:$(port $((12 + ${1#*-})))/health/ready" ;;
    esac
}

# Waits until a role is well, as long as it runs.
wait_for() {
    local role=$1 url tries=0
    url=$(health "$role")
    until curl -fso /dev/null "$url"; do
        # A process that is about to become chopmark is another program for an instant.
        [ $tries -lt 10 ] || running "$role" || fail "$role ended: $(tail -1 "$dir/$role.log")"
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "$role does not answer at $url after a minute; see $dir/$role.log"
        sleep 0.2
    done
}

# URL of the database for a role of it (docs/adr/0017-postgresql.md).
database() { echo "postgres://chopmark_$1@127.0.0.1:$(port 32)/chopmark"; }

# The roles and the schema, as far as they are not there.
migrate() {
    local as
    as="postgres://postgres@127.0.0.1:$(port 32)/postgres"
    psql --quiet --set ON_ERROR_STOP=1 --file "$here/../../schemas/roles/postgres.sql" "$as" >>"$dir/init.log"
    if [ -z "$(psql --quiet --tuples-only --command "SELECT 1 FROM pg_database WHERE datname = 'chopmark'" "$as")" ]; then
        createdb --maintenance-db "$as" --owner chopmark_owner --template template0 --encoding UTF8 chopmark
    fi
    "$chopmark" admin migrate --database "$(database owner)" >>"$dir/init.log"
}

port() { echo $((base + $1)); }

# Once: keys, genesis, secrets, configurations. What is there is left alone, the rest is made.
prepare() {
    local number arguments=() nodes=()
    if [ ! -d "$dir/net" ]; then
        for number in "${!members[@]}"; do
            arguments+=(--member "${members[number]}.localhost=127.0.0.1:$(port $((100 + 10 * number)))")
        done
        "$chopmark" network init "$dir/net" --domain sandbox.localhost "${arguments[@]}" >"$dir/init.log"
    fi
    "$chopmark" admin secrets --out "$dir/secrets" >>"$dir/init.log"
    for number in "${!members[@]}"; do
        nodes+=("\"http://127.0.0.1:$(port $((102 + 10 * number)))\"")
    done
    # shellcheck disable=SC1091
    . "$dir/servers/servers.env"
    for number in 0 1; do
        # Gateways begin with different nodes, so that each node is asked.
        [ "$number" = 0 ] || nodes=("${nodes[@]:2}" "${nodes[@]:0:2}")
        configure "gateway-$number" app "$(IFS=,; echo "${nodes[*]}")" <<END
[gateway]
listen = "127.0.0.1:$(port $((10 + number)))"
internal = "127.0.0.1:$(port $((12 + number)))"
originals = "originals"
END
        configure "committer-$number" committer "$(IFS=,; echo "${nodes[*]}")" <<END
[committer]
internal = "127.0.0.1:$(port $((14 + number)))"
END
    done
    configure courier-0 courier "$(IFS=,; echo "${nodes[*]}")" <<END
[courier]
internal = "127.0.0.1:$(port 16)"
END
    configure admin admin "$(IFS=,; echo "${nodes[*]}")" </dev/null
}

# configure NAME DATABASE-ROLE NODES: the configuration of one process; its own table comes from
# standard input. Each has a file, because each has a role of its own in the database.
configure() {
    {
        cat <<END
[ledger]
genesis = "net/operator.localhost/node/genesis.json"
nodes = [${3//,/, }]
submitter_key_file = "net/operator.localhost/keys/submitter.pem"

[kafka]
brokers = ["$KAFKA"]
partitions = 4
replicas = 1
min_insync_replicas = 1
create_topics = true
session_timeout_ms = 6000

[database]
url = "$(database "$2")"

[cache]
url = "$REDIS"

[secrets]
key_encryption_key_file = "secrets/kek.key"
ids_key_file = "secrets/ids.key"
api_keys_key_file = "secrets/api-keys.key"

# Receivers on this machine, tried again soon, for trying out.
[webhooks]
allowed_networks = ["127.0.0.0/8"]
retry_after_seconds = [1, 2, 3, 5, 10, 30, 60, 300, 1800, 7200, 28800, 57600, 86400, 86400]

END
        cat
    } >"$dir/$1.toml"
}

start() {
    local kept role member approvals=()
    [ -x "$chopmark" ] || fail "no chopmark to run: cargo build --release --package chopmark"
    kept=$(cat "$dir/port-base" 2>/dev/null || true)
    [ -z "$kept" ] || [ -z "$base" ] || [ "$kept" = "$base" ] ||
        fail "$dir was made for ports from $kept on; stop it and remove it to have others"
    base=${kept:-${base:-27000}}
    if [ ${#roles[@]} -gt 0 ]; then
        [ -s "$dir/api.key" ] || fail "$dir has no stack yet: start all of it first"
        for role in "${roles[@]}"; do launch "$role"; done
        for role in "${roles[@]}"; do wait_for "$role"; done
        return
    fi
    roles=("${all[@]}")
    echo "$base" >"$dir/port-base"
    "$here/servers.sh" start --data "$dir/servers" --port-base "$base"
    prepare
    migrate
    for member in "${members[@]}"; do launch "node-$member"; done
    for member in "${members[@]}"; do wait_for "node-$member"; done
    local config="$dir/admin.toml"
    if [ ! -s "$dir/api.key" ]; then
        # Here all members are on one machine; elsewhere each approves on its own.
        for member in "${members[@]}"; do approvals+=(--approve-with "$dir/net/$member.localhost/keys/governance.pem"); done
        "$chopmark" admin tenant create "$tenant" --config "$config" "${approvals[@]}"
        (umask 077 && "$chopmark" admin key create --tenant "$tenant" --config "$config" >"$dir/api.key.new")
        mv "$dir/api.key.new" "$dir/api.key"
    fi
    for role in "${roles[@]}"; do launch "$role"; done
    for role in "${roles[@]}"; do wait_for "$role"; done
    describe
    status
}

# What `chopmark submit --dev DIR` reads, and Prometheus.
describe() {
    local url number readers='[]' targets=()
    url="http://127.0.0.1:$(port 10)"
    curl -fsS "$url/log/policy" >"$dir/policy.txt"
    for number in "${!members[@]}"; do
        readers=$(jq -c --arg member "${members[number]}.localhost" \
            --arg url "http://127.0.0.1:$(port $((101 + 10 * number)))" '. + [{$member, read_url: $url}]' <<<"$readers")
        targets+=("node $(port $((103 + 10 * number)))")
    done
    (
        umask 077
        jq -n --arg url "$url" --arg admin "http://127.0.0.1:$(port 12)" --arg key "$(cat "$dir/api.key")" \
            --arg tenant "$tenant" --arg dir "$dir" --argjson pid "$(cat "$dir/gateway-0.pid")" --argjson nodes "$readers" \
            '{v: 1, base_url: $url, admin_url: $admin, metrics_url: $admin, api_key: $key, tenant: $tenant,
              network: "sandbox", origin: "sandbox.localhost/log", policy_path: ($dir + "/policy.txt"),
              data_dir: $dir, guard_path: ($dir + "/net/operator.localhost.guard"), pid: $pid, nodes: $nodes}' \
            >"$dir/dev.json.new"
    )
    mv "$dir/dev.json.new" "$dir/dev.json"
    targets+=("gateway $(port 12)" "gateway $(port 13)" "committer $(port 14)" "committer $(port 15)" "courier $(port 16)")
    printf '%s\n' "${targets[@]}" |
        jq -R 'split(" ") | {targets: ["127.0.0.1:" + .[1]], labels: {role: .[0]}}' | jq -s . >"$dir/targets.new"
    mv "$dir/targets.new" "$dir/servers/prometheus/targets/roles.json"
}

stop() {
    local role at tries everything=
    if [ ${#roles[@]} -eq 0 ]; then
        everything=1 roles=("${all[@]}")
        rm -f "$dir/dev.json"
    fi
    # Against the stream: nobody is left to serve what is gone.
    for ((at = ${#roles[@]} - 1; at >= 0; at--)); do
        role=${roles[at]}
        running "$role" || continue
        kill -TERM "$(cat "$dir/$role.pid")"
        tries=0
        while running "$role"; do
            tries=$((tries + 1))
            if [ $tries -eq 250 ]; then
                say "$role does not end; killing it"
                kill -KILL "$(cat "$dir/$role.pid")"
            fi
            sleep 0.2
        done
        rm -f "$dir/$role.pid"
    done
    [ -z "$everything" ] || "$here/servers.sh" stop --data "$dir/servers"
    say "stopped: ${roles[*]}"
}

status() {
    local role
    [ ${#roles[@]} -gt 0 ] || roles=("${all[@]}")
    for role in "${roles[@]}"; do
        running "$role" && say "$role runs, log $dir/$role.log" || say "$role does not run"
    done
    [ ! -f "$dir/dev.json" ] || say "API at $(jq -r .base_url "$dir/dev.json"); try: $chopmark submit FILE --dev $dir"
}

"$command"
