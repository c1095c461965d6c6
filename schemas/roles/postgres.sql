-- The roles of a PostgreSQL server that holds databases of Chopmark (docs/adr/0017-postgresql.md). Once
-- for each server, as a superuser; running it again changes nothing:
--
--   psql --file schemas/roles/postgres.sql postgres
--   psql --command "ALTER ROLE chopmark_app PASSWORD '…'" postgres        and so for each role
--   createdb --owner chopmark_owner --template template0 --encoding UTF8 chopmark
--   chopmark admin migrate --database-file FILE                           as chopmark_owner
--
-- A role without a password cannot log in where the server asks for one.

DO $$
DECLARE
    wanted TEXT;
BEGIN
    -- Two at once would both find that a role is missing.
    PERFORM pg_advisory_xact_lock(7146770713);
    FOREACH wanted IN ARRAY ARRAY['chopmark_owner', 'chopmark_app', 'chopmark_committer', 'chopmark_courier', 'chopmark_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', wanted);
            -- Causes are told apart by the server's messages.
            EXECUTE format('ALTER ROLE %I SET lc_messages = ''C''', wanted);
        END IF;
    END LOOP;
END $$;
