-- The rest of the public read model: dropped and projected anew at will.

CREATE TABLE projection_cursors (
    network   TEXT    NOT NULL PRIMARY KEY,
    height    INTEGER NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    tree_size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE case_links (
    network    TEXT    NOT NULL,
    case_key   BLOB    NOT NULL CHECK (length(case_key) = 16),
    position   INTEGER NOT NULL,                              -- from 1
    evidence   BLOB    NOT NULL CHECK (length(evidence) = 16),
    leaf_index INTEGER NOT NULL,
    entry      BLOB    NOT NULL CHECK (length(entry) = 32),
    previous   BLOB    NOT NULL CHECK (length(previous) = 32),
    block_time INTEGER NOT NULL,
    PRIMARY KEY (network, case_key, position)
) STRICT, WITHOUT ROWID;
