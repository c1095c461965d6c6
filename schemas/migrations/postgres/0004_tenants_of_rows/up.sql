-- The tenant of every row that is a tenant's, in the row itself, and row-level security that rests on
-- it (docs/adr/0017-postgresql.md). Roles: schemas/roles/postgres.sql.

-- A private part is of the tenant whose attempt it is, which may be another than that of the operation.
ALTER TABLE private_parts
    ADD COLUMN network TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN tenant  TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE private_parts SET network = operations.network, tenant = operations.tenant
    FROM operations WHERE operations.sequence = private_parts.sequence;
ALTER TABLE case_links ADD COLUMN tenant TEXT COLLATE "C" NOT NULL DEFAULT '';
UPDATE case_links SET tenant = operations.tenant
    FROM operations WHERE operations.network = case_links.network AND operations.key = case_links.case_key;

-- What the transaction acts for. Unset or empty is nobody: no row has a NULL.
CREATE FUNCTION acting_for(name TEXT) RETURNS TEXT LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog
    RETURN nullif(current_setting('chopmark.' || name, true), '');

ALTER TABLE tenants       ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE api_keys      ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE operations    ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE private_parts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE case_links    ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- The gateway reads one tenant's rows at a time, and writes nothing. A subquery is evaluated once a
-- statement, not once a row.
-- IS NOT DISTINCT FROM is no condition for an index: with one, and without fresh statistics, a look-up by
-- key is planned as a walk through all of the tenant's rows. No row has a NULL, so that nobody is nobody.
CREATE POLICY one_tenant ON operations FOR SELECT TO chopmark_app
    USING (network = (SELECT acting_for('network'))
        AND tenant IS NOT DISTINCT FROM (SELECT acting_for('tenant')));
CREATE POLICY one_tenant ON private_parts FOR SELECT TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));
CREATE POLICY one_tenant ON case_links FOR SELECT TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));
CREATE POLICY one_tenant ON tenants FOR SELECT TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND id = (SELECT acting_for('tenant')));
-- A caller is not known before the key is: the one key with the hash at hand may be read.
CREATE POLICY one_key ON api_keys FOR SELECT TO chopmark_app
    USING (encode(hash, 'hex') = (SELECT acting_for('api_key')));

GRANT SELECT ON operations, private_parts, case_links, tenants, api_keys, projection_cursors TO chopmark_app;

-- A committer writes for all tenants, and cannot read what they sealed or who they are.
CREATE POLICY every_tenant ON operations TO chopmark_committer USING (true) WITH CHECK (true);
CREATE POLICY every_tenant ON private_parts TO chopmark_committer USING (true) WITH CHECK (true);
CREATE POLICY every_tenant ON case_links TO chopmark_committer USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE ON operations TO chopmark_committer;
GRANT USAGE ON SEQUENCE operation_sequence TO chopmark_committer;
GRANT SELECT (sequence, operation_hash), INSERT, DELETE ON private_parts TO chopmark_committer;
GRANT SELECT (network), INSERT, DELETE ON case_links TO chopmark_committer;
GRANT SELECT, INSERT, UPDATE, DELETE ON projection_cursors TO chopmark_committer;

-- The administrator adds tenants and keys, and sees no operation.
CREATE POLICY every_tenant ON tenants TO chopmark_admin USING (true) WITH CHECK (true);
CREATE POLICY every_tenant ON api_keys TO chopmark_admin USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON tenants TO chopmark_admin;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON api_keys TO chopmark_admin;

-- All of them compare the version of the schema with their own at the start.
GRANT SELECT ON __diesel_schema_migrations TO chopmark_app, chopmark_committer, chopmark_admin;
