-- Public keys that tenants sign requests with (docs/adr/0025-request-signatures.md). A row is never removed: records
-- name the key that their request was signed with.
CREATE TABLE signing_keys (
    network    TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,                          -- follows from network, tenant and key
    tenant     TEXT COLLATE "C" NOT NULL,
    public_key BYTEA  NOT NULL CHECK (length(public_key) = 32),    -- Ed25519
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (network, id),
    FOREIGN KEY (network, tenant) REFERENCES tenants (network, id)
);

CREATE INDEX signing_keys_by_tenant ON signing_keys (network, tenant);

-- Whether a tenant writes under a request signature only.
ALTER TABLE tenants ADD COLUMN signatures_required BOOLEAN NOT NULL DEFAULT false;

ALTER TABLE signing_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- A gateway reads one tenant's keys.
CREATE POLICY one_tenant ON signing_keys FOR SELECT TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));

GRANT SELECT ON signing_keys TO chopmark_app;

-- The administrator adds and revokes them.
CREATE POLICY every_tenant ON signing_keys TO chopmark_admin USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (revoked_at) ON signing_keys TO chopmark_admin;
GRANT UPDATE (signatures_required) ON tenants TO chopmark_admin;
