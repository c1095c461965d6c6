#!/usr/bin/env bash
# A production deployment on this machine: the servers of servers.sh, four members' nodes, two
# committers, two gateways, a courier. For trying out and for tests: loopback only, a sandbox network, one broker.
# Usage: deploy/native/stack.sh start | stop | status [--data DIR] [--port-base N] [--live] [ROLE...]
#   ROLE         node-archive, node-court, node-notary, node-operator, committer-0, committer-1,
#                gateway-0, gateway-1, courier-0 of a stack that has been started (default: everything);
#                those of the live network: live-node-… as above, live-committer-0, live-courier-0
#   --data       everything (default: .run/stack); ROLE.log are the logs, dev.json says where to call
#   --port-base  asked for at the first start and kept with the data (default: 27000)
#   --live       a live network too, with nodes, committer and courier of its own, from now on; the
#                gateways serve both, and live.json is its dev.json
# Ports from N on: gateways +10 and +11 (health and metrics: +12 and +13), committers +14, +15 and +17,
# couriers +16 and +18, nodes +100 to +133 and +140 to +173, servers as servers.sh says.
# CHOPMARK names the binary (default: chopmark from PATH, else the one that cargo has built).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { sed -n '2,16s/^# //p' "$0" >&2; exit 64; }
say() { echo "stack: $*"; }
fail() { echo "stack: $*" >&2; exit 1; }

command=${1:-}
[ $# -eq 0 ] || shift
members=(archive court notary operator)
all=()
for member in "${members[@]}"; do all+=("node-$member"); done
all+=(committer-0 committer-1 gateway-0 gateway-1 courier-0)
all_live=()
for member in "${members[@]}"; do all_live+=("live-node-$member"); done
all_live+=(live-committer-0 live-courier-0)
tenant=ten_native
dir=.run/stack base='' live='' roles=()
while [ $# -gt 0 ]; do
    case $1 in
    --data) dir=${2:?--data needs a folder}; shift 2 ;;
    --port-base) base=${2:?--port-base needs a number}; shift 2 ;;
    --live) live=1; shift ;;
    *) [[ " ${all[*]} ${all_live[*]} " == *" $1 "* ]] || usage; roles+=("$1"); shift ;;
    esac
done
case $command in start | stop | status) ;; *) usage ;; esac
[ "$command" != start ] || mkdir -p "$dir"
[ -d "$dir" ] || { say "nothing in $dir"; exit 0; }
dir=$(cd "$dir" && pwd)
[ -z "$live" ] || [ "$command" != start ] || mkdir -p "$dir/live"
networks=(sandbox)
if [ -d "$dir/live" ]; then
    networks=(live sandbox)
    all=("${all_live[@]}" "${all[@]}")
fi

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
    live-node-*) set -- node --data "$dir/live/net/${role#live-node-}.localhost" ;;
    *) set -- "$(kind="${role#live-}" && echo "${kind%-*}")" --config "$dir/$role.toml" ;;
    esac
    running "$role" && return
    setsid "$chopmark" "$@" --log-format json >>"$dir/$role.log" 2>&1 </dev/null &
    echo $! >"$dir/$role.pid"
}

# A port of a member's node: network, the member's number, and which of its four.
node_port() { port $((100 + ($([ "$1" = live ] && echo 4 || echo 0) + $2) * 10 + $3)); }

# Folder of a network's members.
net() { [ "$1" = live ] && echo live/net || echo net; }

# Where a role says that it is well.
health() {
    local number network=sandbox
    [[ $1 != live-* ]] || network=live
    case $1 in
    node-* | live-node-*)
        for number in "${!members[@]}"; do
            [[ $1 != *node-${members[number]} ]] || echo "http://127.0.0.1:$(node_port $network "$number" 3)/health/live"
        done
        ;;
    live-committer-0) echo "http://127.0.0.1:$(port 17)/health/live" ;;
    live-courier-0) echo "http://127.0.0.1:$(port 18)/health/live" ;;
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
    local network
    "$chopmark" admin secrets --out "$dir/secrets" >>"$dir/init.log"
    # shellcheck disable=SC1091
    . "$dir/servers/servers.env"
    for network in "${networks[@]}"; do found "$network"; done
    for network in "${networks[@]}"; do configure_roles "$network"; done
}

# A network's members.
found() {
    local network=$1 number arguments=()
    [ ! -d "$dir/$(net "$network")" ] || return 0
    for number in "${!members[@]}"; do
        arguments+=(--member "${members[number]}.localhost=127.0.0.1:$(node_port "$network" "$number" 0)")
    done
    [ "$network" != live ] || arguments+=(--live)
    "$chopmark" network init "$dir/$(net "$network")" --domain "$network.localhost" "${arguments[@]}" >>"$dir/init.log"
}

# Internal interfaces of a network's nodes, as a list of TOML, from the given one on: gateways begin with
# different nodes, so that each node is asked.
nodes() {
    local number list=()
    for number in "${!members[@]}"; do
        list+=("\"http://127.0.0.1:$(node_port "$1" $((($2 + number) % ${#members[@]})) 2)\"")
    done
    (IFS=,; echo "${list[*]}" | sed 's/,/, /g')
}

# What the processes of a network are told; the gateways belong to the first.
configure_roles() {
    local network=$1 number prefix=
    [ "$network" != live ] || prefix=live-
    if [ "$network" = live ]; then
        configure live-committer-0 "$network" committer 0 <<END
[committer]
internal = "127.0.0.1:$(port 17)"
END
        configure live-courier-0 "$network" courier 0 <<END
[courier]
internal = "127.0.0.1:$(port 18)"
END
    else
        for number in 0 1; do
            configure "committer-$number" "$network" committer $((2 * number)) <<END
[committer]
internal = "127.0.0.1:$(port $((14 + number)))"
END
        done
        configure courier-0 "$network" courier 0 <<END
[courier]
internal = "127.0.0.1:$(port 16)"
END
    fi
    configure "${prefix}admin" "$network" admin 0 </dev/null
    [ "$network" = "${networks[0]}" ] || return 0
    for number in 0 1; do
        configure "gateway-$number" "$network" app $((2 * number)) <<END
[gateway]
listen = "127.0.0.1:$(port $((10 + number)))"
internal = "127.0.0.1:$(port $((12 + number)))"
originals = "originals"
$([ "$network" = sandbox ] || beside $((2 * number)))
END
    done
}

# The sandbox beside the live network.
beside() {
    cat <<END

[sandbox]
genesis = "net/operator.localhost/node/genesis.json"
nodes = [$(nodes sandbox "$1")]
END
}

# configure NAME NETWORK DATABASE-ROLE FIRST-NODE: the configuration of one process; its own table comes
# from standard input. Each has a file, because each has a role of its own in the database.
configure() {
    {
        cat <<END
[ledger]
genesis = "$(net "$2")/operator.localhost/node/genesis.json"
nodes = [$(nodes "$2" "$4")]
submitter_key_file = "$(net "$2")/operator.localhost/keys/submitter.pem"

[kafka]
brokers = ["$KAFKA"]
partitions = 4
replicas = 1
min_insync_replicas = 1
create_topics = true
session_timeout_ms = 6000

[database]
url = "$(database "$3")"

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

# Once: a tenant of a network, and its key.
admit() {
    local network=$1 prefix='' member key approvals=()
    [ "$network" != live ] || prefix=live-
    key="$dir/${prefix}api.key"
    [ ! -s "$key" ] || return 0
    # Here all members are on one machine; elsewhere each approves on its own.
    for member in "${members[@]}"; do
        approvals+=(--approve-with "$dir/$(net "$network")/$member.localhost/keys/governance.pem")
    done
    "$chopmark" admin tenant create "$tenant" --config "$dir/${prefix}admin.toml" "${approvals[@]}"
    (umask 077 && "$chopmark" admin key create --tenant "$tenant" --config "$dir/${prefix}admin.toml" >"$key.new")
    mv "$key.new" "$key"
}

start() {
    local kept role network
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
    for role in "${roles[@]}"; do [[ $role != *node-* ]] || launch "$role"; done
    for role in "${roles[@]}"; do [[ $role != *node-* ]] || wait_for "$role"; done
    for network in "${networks[@]}"; do admit "$network"; done
    for role in "${roles[@]}"; do launch "$role"; done
    for role in "${roles[@]}"; do wait_for "$role"; done
    describe
    status
}

# What `chopmark submit --dev DIR` reads, and Prometheus.
describe() {
    local network number targets=()
    for network in "${networks[@]}"; do
        describe_network "$network"
        for number in "${!members[@]}"; do targets+=("node $(node_port "$network" "$number" 3)"); done
    done
    targets+=("gateway $(port 12)" "gateway $(port 13)" "committer $(port 14)" "committer $(port 15)" "courier $(port 16)")
    [ ${#networks[@]} = 1 ] || targets+=("committer $(port 17)" "courier $(port 18)")
    printf '%s\n' "${targets[@]}" |
        jq -R 'split(" ") | {targets: ["127.0.0.1:" + .[1]], labels: {role: .[0]}}' | jq -s . >"$dir/targets.new"
    mv "$dir/targets.new" "$dir/servers/prometheus/targets/roles.json"
}

# Where to call one network: dev.json, or live.json. The sandbox beside another is under /sandbox.
describe_network() {
    local network=$1 url number readers='[]' prefix='' file=dev.json
    url="http://127.0.0.1:$(port 10)"
    [ "$network" = "${networks[0]}" ] || url+=/sandbox
    [ "$network" != live ] || prefix=live- file=live.json
    curl -fsS "$url/log/policy" >"$dir/${prefix}policy.txt"
    for number in "${!members[@]}"; do
        readers=$(jq -c --arg member "${members[number]}.localhost" \
            --arg url "http://127.0.0.1:$(node_port "$network" "$number" 1)" '. + [{$member, read_url: $url}]' <<<"$readers")
    done
    (
        umask 077
        jq -n --arg url "$url" --arg admin "http://127.0.0.1:$(port 12)" --arg key "$(cat "$dir/${prefix}api.key")" \
            --arg tenant "$tenant" --arg dir "$dir" --arg network "$network" --arg prefix "$prefix" \
            --arg net "$(net "$network")" --argjson pid "$(cat "$dir/gateway-0.pid")" --argjson nodes "$readers" \
            '{v: 1, base_url: $url, admin_url: $admin, metrics_url: $admin, api_key: $key, tenant: $tenant,
              network: $network, origin: ($network + ".localhost/log"), policy_path: ($dir + "/" + $prefix + "policy.txt"),
              data_dir: $dir, guard_path: ($dir + "/" + $net + "/operator.localhost.guard"), pid: $pid, nodes: $nodes}' \
            >"$dir/$file.new"
    )
    mv "$dir/$file.new" "$dir/$file"
}

stop() {
    local role at tries everything=
    if [ ${#roles[@]} -eq 0 ]; then
        everything=1 roles=("${all[@]}")
        rm -f "$dir/dev.json" "$dir/live.json"
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
