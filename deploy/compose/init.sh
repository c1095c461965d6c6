#!/bin/sh
# Makes, once, what belongs to the consortium and to the operator: the members' folders with keys and
# genesis, and the secrets that gateways share. What is there is left alone.
# Usage: in the image, by prepare.sh; the argument is the folder for all of it.
set -eu
out=${1:?usage: init.sh DIR}
umask 077
if [ ! -d "$out/net" ]; then
    # Addresses are IP and port (docs/adr/0012): compose.yaml gives each node the one that stands here.
    chopmark network init "$out/net" --domain sandbox.localhost \
        --member archive.localhost=172.30.86.11:26600 \
        --member court.localhost=172.30.86.12:26600 \
        --member notary.localhost=172.30.86.13:26600 \
        --member operator.localhost=172.30.86.14:26600
fi
for member in archive court notary operator; do
    mkdir -p "$out/guards/$member"
    # Each guard in a folder of its own, so that a node is given its own and no other.
    [ ! -e "$out/net/$member.localhost.guard" ] || mv "$out/net/$member.localhost.guard" "$out/guards/$member/guard"
done
chopmark admin secrets --out "$out/secrets"
