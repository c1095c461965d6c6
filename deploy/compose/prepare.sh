#!/usr/bin/env bash
# Once, before `docker compose up`: builds the image, draws passwords, makes the members' folders. All of
# it lies in deploy/compose/run, readable by you alone; containers run as you, so that they can read it.
# What is there is left alone.
# Usage: deploy/compose/prepare.sh [--no-image]      (--no-image: the image is there already)
set -euo pipefail
cd "$(dirname "$0")"
fail() { echo "prepare: $*" >&2; exit 1; }
case ${1:-} in '' | --no-image) ;; *) sed -n '2,5s/^# //p' "$0" >&2; exit 64 ;; esac
[ "$(id -u)" != 0 ] || fail "run this as the user that the containers shall run as, not as root"

umask 077
mkdir -p run/{secrets,keys,originals,postgres,prometheus,grafana}
printf 'CHOPMARK_UID=%s\nCHOPMARK_GID=%s\n' "$(id -u)" "$(id -g)" >.env

# password NAME: drawn once, in a file of its own. Hexadecimal digits need no quoting anywhere.
password() {
    [ -s "run/secrets/$1.password" ] && return
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"run/secrets/$1.password.new"
    mv "run/secrets/$1.password.new" "run/secrets/$1.password"
}
password postgres
password grafana
for role in owner app committer courier admin; do
    password "database-$role"
    printf 'postgres://chopmark_%s:%s@postgres:5432/chopmark\n' "$role" "$(cat "run/secrets/database-$role.password")" \
        >"run/secrets/database-$role.url"
done

[ -n "${1:-}" ] || docker compose build init
docker compose run --rm --no-deps init
echo "prepare: done; next: docker compose --project-directory deploy/compose up --detach"
