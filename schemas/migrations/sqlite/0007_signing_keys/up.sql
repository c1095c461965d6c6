-- Public keys that tenants sign requests with (docs/adr/0025-request-signatures.md). A row is never removed: records
-- name the key that their request was signed with.
CREATE TABLE signing_keys (
    network    TEXT NOT NULL,
    id         TEXT NOT NULL,                                      -- follows from network, tenant and key
    tenant     TEXT NOT NULL,
    public_key BLOB    NOT NULL CHECK (length(public_key) = 32),   -- Ed25519
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    PRIMARY KEY (network, id),
    FOREIGN KEY (network, tenant) REFERENCES tenants (network, id)
) STRICT;

CREATE INDEX signing_keys_by_tenant ON signing_keys (network, tenant);

-- Whether a tenant writes under a request signature only.
ALTER TABLE tenants ADD COLUMN signatures_required INTEGER NOT NULL DEFAULT 0;
