#!/bin/sh
# The roles of the database with their passwords, and the database itself, as far as they are not there.
# Usage: in PostgreSQL's image, by compose.yaml. PGHOST names the server; ROLES the file with the roles'
# SQL, SECRETS the folder with NAME.password files.
set -eu
PGUSER=postgres PGPASSWORD=$(cat "$SECRETS/postgres.password")
export PGUSER PGPASSWORD
psql --quiet --set ON_ERROR_STOP=1 --file "$ROLES" postgres
# By standard input: arguments can be read by every user of a machine.
for role in owner app committer courier admin; do
    printf "ALTER ROLE chopmark_%s PASSWORD '%s';\n" "$role" "$(cat "$SECRETS/database-$role.password")"
done | psql --quiet --set ON_ERROR_STOP=1 postgres
if [ -z "$(psql --quiet --tuples-only --no-align --command "SELECT 1 FROM pg_database WHERE datname = 'chopmark'" postgres)" ]; then
    createdb --owner chopmark_owner --template template0 --encoding UTF8 chopmark
fi
