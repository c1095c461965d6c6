-- Tenants (third-party platforms) and the keys they call the API with. Private: never dropped.

CREATE TABLE tenants (
    network        TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    wrapped_secret BLOB    NOT NULL,                              -- under the key-encryption key
    active         INTEGER NOT NULL CHECK (active IN (0, 1)),
    created_at     INTEGER NOT NULL,                              -- Unix ms, as every time here
    PRIMARY KEY (network, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- keyed; the key itself is kept nowhere
    network    TEXT    NOT NULL,
    tenant     TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,                                  -- names, comma-separated, sorted
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    FOREIGN KEY (network, tenant) REFERENCES tenants (network, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX api_keys_by_tenant ON api_keys (network, tenant);
