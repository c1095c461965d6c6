-- Tenants (third-party platforms) and the keys they call the API with. Private: never dropped.
--
-- Texts are compared byte by byte (collation C): no index depends on the system's locales.

CREATE TABLE tenants (
    network        TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    wrapped_secret BYTEA   NOT NULL,                              -- under the key-encryption key
    active         BOOLEAN NOT NULL,
    created_at     BIGINT  NOT NULL,                              -- Unix ms, as every time here
    PRIMARY KEY (network, id)
);

CREATE TABLE api_keys (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash       BYTEA  NOT NULL UNIQUE CHECK (length(hash) = 32),  -- keyed; the key itself is kept nowhere
    network    TEXT COLLATE "C" NOT NULL,
    tenant     TEXT COLLATE "C" NOT NULL,
    scopes     TEXT COLLATE "C" NOT NULL,                         -- names, comma-separated, sorted
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    FOREIGN KEY (network, tenant) REFERENCES tenants (network, id)
);

CREATE INDEX api_keys_by_tenant ON api_keys (network, tenant);
