#!/bin/sh
# Makes the folder of a member's node (docs/adr/0012) before the node starts: keys and configuration in
# memory, readable by the node alone; data and guard on their volumes. Runs again at every start.
#   KEYS    mounted Secret: NAME.pem, and rotation-N.NAME.pem of rotations
#   CONFIG  node.toml
#   DATA    volume for the data      GUARD  volume for the guard
#   SEED    mounted Secret for the first start: node.tar, guard; may be empty or missing later
#   MEMBER  the folder to make, in memory
set -eu
umask 077
fail() {
    echo "member: $*" >&2
    exit 1
}

mkdir -p "$MEMBER/keys"
for file in "$KEYS"/*.pem; do
    [ -e "$file" ] || fail "no keys in $KEYS"
    name=${file##*/} folder=$MEMBER/keys
    case $name in
    rotation-*.*.pem)
        folder=$folder/${name%%.*} name=${name#*.}
        mkdir -p "$folder"
        ;;
    esac
    install -m 0600 "$file" "$folder/$name"
done
install -m 0600 "$CONFIG" "$MEMBER/node.toml"

if [ ! -e "$DATA/node" ]; then
    seed=${SEED:-/nowhere}
    if [ ! -s "$seed/node.tar" ] || [ ! -s "$seed/guard" ]; then
        fail "there are no data. At the very first start set node.seed.secret; if there were data, they are lost:" \
            "see docs/runbooks/guard.md, and do not seed again"
    fi
    # A guard that differs from the seed's has been signed with. A new one would forget what it promised.
    if [ -e "$GUARD/guard" ] && ! cmp -s "$seed/guard" "$GUARD/guard"; then
        fail "there are no data, and the guard remembers signatures: the data are lost. Restore them (docs/runbooks/guard.md)"
    fi
    rm -rf "$DATA/seed"
    mkdir "$DATA/seed"
    tar --extract --no-same-owner --file "$seed/node.tar" --directory "$DATA/seed"
    [ -s "$DATA/seed/node/genesis.json" ] || fail "node.tar has no node/genesis.json"
    install -m 0600 "$seed/guard" "$GUARD/guard.new"
    mv "$GUARD/guard.new" "$GUARD/guard"
    sync
    # Last: from here on this is a node with a past.
    mv "$DATA/seed/node" "$DATA/node"
    rm -rf "$DATA/seed"
    sync
fi
[ -e "$GUARD/guard" ] || fail "the guard is missing. Restore it from where it is kept (docs/runbooks/guard.md)"
mkdir -p "$DATA/board"
ln -sfn "$DATA/node" "$MEMBER/node"
ln -sfn "$DATA/board" "$MEMBER/board"
