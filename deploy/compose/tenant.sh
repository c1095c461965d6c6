#!/bin/sh
# A tenant with the approval of all members, and an API key of it, once.
# Usage: in the image, by compose.yaml; SECRETS is the folder with the members' governance keys, the
# argument the folder for api.key.
set -eu
out=${1:?usage: tenant.sh DIR}
[ ! -s "$out/api.key" ] || exit 0
# Here all members are on one machine; elsewhere each approves on its own.
chopmark admin tenant create ten_compose --config "$CONFIG" \
    --approve-with "$SECRETS/archive.pem" --approve-with "$SECRETS/court.pem" \
    --approve-with "$SECRETS/notary.pem" --approve-with "$SECRETS/operator.pem"
umask 077
chopmark admin key create --tenant ten_compose --config "$CONFIG" >"$out/api.key.new"
mv "$out/api.key.new" "$out/api.key"
