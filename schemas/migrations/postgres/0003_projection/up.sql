-- The rest of the public read model: dropped and projected anew at will.

CREATE TABLE projection_cursors (
    network   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    height    BIGINT NOT NULL,
    hash      BYTEA  NOT NULL CHECK (length(hash) = 32),
    tree_size BIGINT NOT NULL
);

CREATE TABLE case_links (
    network    TEXT COLLATE "C" NOT NULL,
    case_key   BYTEA  NOT NULL CHECK (length(case_key) = 16),
    position   BIGINT NOT NULL,                               -- from 1
    evidence   BYTEA  NOT NULL CHECK (length(evidence) = 16),
    leaf_index BIGINT NOT NULL,
    entry      BYTEA  NOT NULL CHECK (length(entry) = 32),
    previous   BYTEA  NOT NULL CHECK (length(previous) = 32),
    block_time BIGINT NOT NULL,
    PRIMARY KEY (network, case_key, position)
);
