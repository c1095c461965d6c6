#!/usr/bin/env bash
# The servers that a production deployment leans on, on this machine: Apache Kafka (one node, KRaft),
# PostgreSQL, Redis, Prometheus. For tests and for trying out: loopback only, folders and ports of
# their own, never the instances that the system runs. scripts/setup.sh servers installs them.
# Usage: deploy/native/servers.sh start | stop | status [--data DIR] [--port-base N] [SERVER...]
#   SERVER     kafka, postgres, redis, prometheus (default: all)
#   --data     data, logs (SERVER.log) and pid files (default: .run/servers)
#   --port-base  asked for at the first start and kept with the data (default: 27000)
# Ports from N on: kafka +92 (with TLS and SCRAM: +94), controller +93, postgres +32, redis +79,
# prometheus +90. Addresses are in DIR/servers.env.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

kafka_version=$(sed -n 's|.*<version>\([0-9.]*\)</version>.*|\1|p' "$here/kafka/pom.xml" | sed -n 2p)
# What the tests ran with. Kafka is exactly this; the others are what the system's packages give, and
# another major version is used with a warning.
declare -A tested=([kafka]=$kafka_version [postgres]=15 [redis]=7 [prometheus]=2)

usage() { sed -n '2,10s/^# //p' "$0" >&2; exit 64; }
say() { echo "servers: $*"; }
fail() { echo "servers: $*" >&2; exit 1; }

command=${1:-}
[ $# -eq 0 ] || shift
dir=.run/servers base='' servers=()
while [ $# -gt 0 ]; do
    case $1 in
    --data) dir=${2:?--data needs a folder}; shift 2 ;;
    --port-base) base=${2:?--port-base needs a number}; shift 2 ;;
    kafka | postgres | redis | prometheus) servers+=("$1"); shift ;;
    *) usage ;;
    esac
done
case $command in start | stop | status) ;; *) usage ;; esac
[ ${#servers[@]} -gt 0 ] || servers=(kafka postgres redis prometheus)
[ "$command" != start ] || mkdir -p "$dir"
[ -d "$dir" ] || { say "nothing in $dir"; exit 0; }
dir=$(cd "$dir" && pwd)
kept=$(cat "$dir/port-base" 2>/dev/null || true)
if [ -n "$kept" ] && [ -n "$base" ] && [ "$kept" != "$base" ]; then
    fail "$dir was made for ports from $kept on; stop it and remove it to have others"
fi
base=${kept:-${base:-27000}}
[[ $base =~ ^[0-9]+$ ]] && [ "$base" -ge 1024 ] && [ "$base" -le 65400 ] || fail "--port-base must be 1024 to 65400"

declare -A port=([kafka]=$((base + 92)) [postgres]=$((base + 32)) [redis]=$((base + 79)) [prometheus]=$((base + 90)))
declare -A program=([kafka]=java [postgres]=postgres [redis]=redis-server [prometheus]=prometheus)
controller_port=$((base + 93)) secure_port=$((base + 94))

# Whether a server runs: the number in its file may be another program's by now, so the program and
# its folder are compared too.
running() {
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${program[$1]}" ] &&
        [ "$(readlink "/proc/$pid/cwd")" = "$dir/$1" ]
}

open_port() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

need() { command -v "$1" >/dev/null || fail "$1 is missing: run scripts/setup.sh servers"; }

# Starts "$@" in the server's folder, in the background, and keeps its pid.
launch() {
    local server=$1
    shift
    (
        cd "$dir/$server"
        setsid "$@" >>"$dir/$server.log" 2>&1 </dev/null &
        echo $! >"$dir/$server.pid"
    )
}

# The jars: fetched once, into the user's cache, in the versions of the pom, with checksums compared.
kafka_jars() {
    jars=${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/kafka/$kafka_version
    [ -d "$jars" ] && return
    need mvn
    say "fetching Apache Kafka $kafka_version into $jars"
    local fetched
    mkdir -p "$(dirname "$jars")"
    fetched=$(mktemp -d "$jars.XXXXXX")
    mvn --batch-mode --quiet --strict-checksums --file "$here/kafka/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime "-DoutputDirectory=$fetched" || fail "Maven could not fetch Kafka"
    # Another start may have been faster.
    mv -T "$fetched" "$jars" 2>/dev/null || rm -rf "$fetched"
}

# A key of the server's own and the password of the user `chopmark`, for the listener with TLS and SCRAM.
kafka_secrets() {
    [ -f kafka/password ] && return
    need openssl
    (
        umask 077
        mkdir -p kafka/tls
        cd kafka/tls
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=native CA" \
            -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out server.crt \
            -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1")
        cat server.key server.crt >server.pem
        openssl rand -hex 16 >../password
    ) 2>>kafka.log
}

start_kafka() {
    need java
    kafka_jars
    cd "$dir"
    mkdir -p kafka
    kafka_secrets
    # One broker: a topic has one replica. Topics are made on purpose, never by a typing error, and
    # an empty group is served at once.
    cat >kafka/server.properties <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:${port[kafka]},SECURE://127.0.0.1:$secure_port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:${port[kafka]},SECURE://localhost:$secure_port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$dir/kafka/tls/server.pem
log.dirs=$dir/kafka/data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
END
    local java=(java -Xms128m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
        "-Dlog4j2.configurationFile=$here/kafka/log4j2.properties" -cp "$jars/*")
    if [ ! -f kafka/data/meta.properties ]; then
        # 16 bytes in base64url; one that begins with a dash would be taken for an option.
        "${java[@]}" kafka.tools.StorageTool format --config kafka/server.properties \
            --cluster-id "$(openssl rand 16 | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^-/A/')" \
            --add-scram "SCRAM-SHA-512=[name=chopmark,password=$(cat kafka/password)]" >>kafka.log 2>&1 ||
            fail "could not format Kafka's folder; see $dir/kafka.log"
    fi
    launch kafka "${java[@]}" kafka.Kafka server.properties
}

start_postgres() {
    local bin as=()
    bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -1)
    [ -n "$bin" ] || fail "PostgreSQL is missing: run scripts/setup.sh servers"
    cd "$dir"
    # PostgreSQL refuses to run as root.
    if [ "$(id -u)" = 0 ]; then
        as=(setpriv --reuid=postgres --regid=postgres --init-groups)
        install -d -o postgres -g postgres -m 700 postgres
        "${as[@]}" test -x postgres || fail "the user postgres may not enter $dir; choose another with --data, such as /var/tmp/chopmark"
    fi
    if [ ! -f postgres/PG_VERSION ]; then
        "${as[@]}" "$bin/initdb" --pgdata="$dir/postgres" --username=postgres --auth=trust --encoding=UTF8 \
            --locale=C --data-checksums >>postgres.log 2>&1 || fail "initdb failed; see $dir/postgres.log"
    fi
    # A killed one is in the way of a successor until nobody waits for it any more, and so is what it leaves
    # behind, which ends with its last statement.
    local before left tries=0
    before=$(head -1 postgres/postmaster.pid 2>/dev/null || true)
    while [ $tries -lt 300 ]; do
        left=$(find /proc -maxdepth 2 -name cwd -lname "$dir/postgres" 2>/dev/null | head -1 || true)
        [ -n "$left" ] || { [ -n "$before" ] && kill -0 "$before" 2>/dev/null; } || break
        sleep 0.1
        tries=$((tries + 1))
    done
    launch postgres "${as[@]}" "$bin/postgres" -D "$dir/postgres" -p "${port[postgres]}" -h 127.0.0.1 -k ''
}

start_redis() {
    need redis-server
    mkdir -p "$dir/redis"
    # Nothing in it is worth keeping (a cache), so nothing is written.
    launch redis redis-server --bind 127.0.0.1 --port "${port[redis]}" --save '' --appendonly no --dir "$dir/redis"
}

start_prometheus() {
    need prometheus
    mkdir -p "$dir/prometheus/targets" "$dir/prometheus/rules"
    # Rules of one's own may lie beside it.
    cp "$here/../prometheus/alerts.yaml" "$dir/prometheus/rules/alerts.yaml"
    # Roles are found in targets/*.json, so that they come and go without a restart.
    cat >"$dir/prometheus/prometheus.yml" <<END
global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files: [rules/*.yaml]
scrape_configs:
  - job_name: chopmark
    file_sd_configs:
      - files: [targets/*.json]
        refresh_interval: 5s
  - job_name: prometheus
    static_configs:
      - targets: ["127.0.0.1:${port[prometheus]}"]
END
    launch prometheus prometheus --config.file=prometheus.yml --storage.tsdb.path=data \
        "--web.listen-address=127.0.0.1:${port[prometheus]}"
}

ready() {
    case $1 in
    # The port opens before requests are served.
    # grep reads to the end (-c, not -q): a pipe that it left early would count as a failure.
    kafka) open_port "${port[kafka]}" && tail -c "+$2" "$dir/kafka.log" | grep -c 'Kafka Server started' >/dev/null ;;
    postgres) "$(find /usr/lib/postgresql/*/bin/pg_isready | sort -V | tail -1)" -q -h 127.0.0.1 -p "${port[postgres]}" ;;
    redis) [ "$(redis-cli -p "${port[redis]}" ping 2>/dev/null)" = PONG ] ;;
    prometheus) curl -fso /dev/null "http://127.0.0.1:${port[prometheus]}/-/ready" ;;
    esac
}

version() {
    case $1 in
    kafka) echo "$kafka_version" ;;
    postgres) cat "$dir/postgres/PG_VERSION" ;;
    redis) redis-server --version | sed 's/.* v=\([0-9.]*\).*/\1/' ;;
    prometheus) prometheus --version 2>&1 | sed -n 's/^prometheus, version \([0-9.]*\).*/\1/p' ;;
    esac
}

check_version() {
    local found
    found=$(version "$1")
    [[ $found == "${tested[$1]}" || $found == "${tested[$1]}".* ]] ||
        say "warning: $1 is version $found; the tests ran with ${tested[$1]}"
}

start() {
    local server ports taken from
    echo "$base" >"$dir/port-base"
    cat >"$dir/servers.env" <<END
KAFKA=127.0.0.1:${port[kafka]}
KAFKA_SECURE=localhost:$secure_port
POSTGRES=postgres://postgres@127.0.0.1:${port[postgres]}/postgres
REDIS=redis://127.0.0.1:${port[redis]}
PROMETHEUS=http://127.0.0.1:${port[prometheus]}
END
    for server in "${servers[@]}"; do
        running "$server" && continue
        ports=("${port[$server]}")
        [ "$server" != kafka ] || ports+=("$controller_port" "$secure_port")
        for taken in "${ports[@]}"; do
            ! open_port "$taken" || fail "port $taken, for $server, is taken by another program (ss -ltnp shows it); choose other ports with --port-base"
        done
        touch "$dir/$server.log"
        from=$(($(stat -c %s "$dir/$server.log") + 1))
        "start_$server"
        local tries=0
        until ready "$server" "$from"; do
            # A server that is replaced by its own program has another name for an instant.
            [ $tries -lt 10 ] || running "$server" || fail "$server ended; see $dir/$server.log"
            tries=$((tries + 1))
            [ $tries -lt 600 ] || fail "$server does not answer after two minutes; see $dir/$server.log"
            sleep 0.2
        done
        check_version "$server"
    done
    status
}

stop() {
    local server tries
    for server in "${servers[@]}"; do
        running "$server" || continue
        # PostgreSQL: SIGINT ends sessions instead of waiting for them.
        kill "-$([ "$server" = postgres ] && echo INT || echo TERM)" "$(cat "$dir/$server.pid")"
    done
    for server in "${servers[@]}"; do
        tries=0
        while running "$server"; do
            tries=$((tries + 1))
            if [ $tries -eq 150 ]; then
                say "$server does not end; killing it"
                kill -KILL "$(cat "$dir/$server.pid")"
            fi
            sleep 0.2
        done
        rm -f "$dir/$server.pid"
    done
    say "stopped: ${servers[*]}"
}

status() {
    local server
    for server in "${servers[@]}"; do
        if running "$server"; then
            say "$server $(version "$server") on 127.0.0.1:${port[$server]}, log $dir/$server.log"
        else
            say "$server does not run"
        fi
    done
}

"$command"
