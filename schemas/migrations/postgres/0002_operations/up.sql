-- Operations and their private parts.
--
-- Keys are hashes, so an index over them takes one page write a row; that write is most of what a
-- row costs. Exactly one such index exists here (operations_by_key), plus one for rows that bring
-- an external id. Everything else grows at its end: private parts hang on the operation's sequence
-- and not on its hash.

-- Position for paging. Writers take numbers before they know which rows are new: there are gaps.
CREATE SEQUENCE operation_sequence AS BIGINT;

CREATE TABLE operations (
    sequence       BIGINT  NOT NULL PRIMARY KEY,
    network        TEXT COLLATE "C" NOT NULL,
    key            BYTEA   NOT NULL CHECK (length(key) = 16),
    op             BYTEA   NOT NULL CHECK (length(op) = 32),
    tenant         TEXT COLLATE "C" NOT NULL,                     -- empty for governance
    kind           INTEGER NOT NULL,                              -- stable number of the operation type
    request        BYTEA   NOT NULL CHECK (length(request) = 32),
    operation_hash BYTEA   NOT NULL CHECK (length(operation_hash) = 32),
    accepted_at    BIGINT  NOT NULL,
    conflicted     BOOLEAN NOT NULL,
    -- The outcome: the public read model, dropped and projected anew at will.
    state          INTEGER NOT NULL,                              -- 0 accepted, 1 committed, 2 rejected
    leaf_index     BIGINT,
    entry          BYTEA,
    height         BIGINT,
    block_time     BIGINT,
    rejection      INTEGER,                                       -- stable number of the rejection code
    CHECK (CASE state
        WHEN 0 THEN leaf_index IS NULL AND entry IS NULL AND height IS NULL AND block_time IS NULL
            AND rejection IS NULL
        WHEN 1 THEN leaf_index IS NOT NULL AND entry IS NOT NULL AND length(entry) = 32 AND height IS NOT NULL
            AND block_time IS NOT NULL AND rejection IS NULL
        WHEN 2 THEN leaf_index IS NULL AND entry IS NULL AND height IS NOT NULL
            AND block_time IS NOT NULL AND rejection IS NOT NULL
        ELSE FALSE END)
);

CREATE UNIQUE INDEX operations_by_key ON operations (network, key);

-- A tenant's pages. The time stands in the index so that a time window skips rows unread.
CREATE INDEX operations_by_tenant ON operations (network, tenant, kind, sequence, accepted_at);

-- The few rows that a page of one state would otherwise search all of a tenant's history for.
CREATE INDEX operations_uncommitted ON operations (network, tenant, kind, state, sequence)
    WHERE state <> 1;

CREATE UNIQUE INDEX operations_by_leaf ON operations (network, leaf_index)
    WHERE leaf_index IS NOT NULL;

CREATE TABLE private_parts (
    id             BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sequence       BIGINT NOT NULL REFERENCES operations (sequence),
    operation_hash BYTEA  NOT NULL CHECK (length(operation_hash) = 32),  -- names the attempt
    sealed         BYTEA  NOT NULL,
    external_index BYTEA  CHECK (length(external_index) = 32),           -- keyed per tenant
    accepted_at    BIGINT NOT NULL
);

-- Sealed bytes do not compress: trying to would be work for nothing.
ALTER TABLE private_parts ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE UNIQUE INDEX private_parts_by_attempt ON private_parts (sequence, operation_hash);

CREATE INDEX private_parts_by_external ON private_parts (external_index, sequence)
    WHERE external_index IS NOT NULL;
