#!/bin/sh
# Make the role and the database, or bring them to what is wanted, once the server answers.
# usage: PGHOST=… PGPORT=… PGPASSWORD=… ROLE_PASSWORD=… prepare.sh ROLE DATABASE
set -eu
export PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=5

# The first start makes the cluster, which takes a few seconds; a recovery may take minutes.
tries=600
until pg_isready --quiet; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "the server at $PGHOST:$PGPORT does not answer" >&2; exit 1; }
    sleep 0.5
done

# The password comes through the environment, never through a command line that others can see.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set role="$1" --set database="$2" <<'SQL'
\getenv password ROLE_PASSWORD
SET log_min_error_statement TO panic;
SELECT format('CREATE ROLE %I LOGIN', :'role')
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'role')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
ALTER DATABASE :"database" OWNER TO :"role";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
SQL
