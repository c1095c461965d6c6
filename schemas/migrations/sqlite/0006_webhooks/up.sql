-- Webhooks (docs/adr/0022-webhooks.md): where tenants want to be told, what happened, and what came of telling them.
-- No part of the public read model: nothing here is dropped when that is projected anew.

CREATE TABLE webhook_endpoints (
    network         TEXT NOT NULL,
    id              BLOB    NOT NULL CHECK (length(id) = 16),
    tenant          TEXT NOT NULL,
    request         BLOB    NOT NULL CHECK (length(request) = 32), -- keyed digest of the request that made it
    url             TEXT NOT NULL,
    events          TEXT NOT NULL,                     -- names, comma-separated, sorted; empty: all
    description     TEXT,
    secret          BLOB    NOT NULL,                              -- under the key-encryption key, as the next
    previous_secret BLOB,                                         -- signs too, until the time below
    previous_until  INTEGER,
    state           INTEGER NOT NULL,                              -- 0 enabled; else why not: 1 by its tenant, 2 gone (410), 3 failing
    disabled_at     INTEGER,
    failing_since   INTEGER,                                        -- since when nothing has been delivered
    created_at      INTEGER NOT NULL,
    version         INTEGER NOT NULL,                              -- counts what its tenant changed
    PRIMARY KEY (network, id),
    FOREIGN KEY (network, tenant) REFERENCES tenants (network, id)
) STRICT;

CREATE INDEX webhook_endpoints_by_tenant ON webhook_endpoints (network, tenant);

-- Events of tenants that have an endpoint. The id follows from what happened, so that the same comes once.
CREATE TABLE outbox_events (
    network  TEXT NOT NULL,
    id       BLOB    NOT NULL CHECK (length(id) = 16),
    tenant   TEXT NOT NULL,
    kind     INTEGER NOT NULL,                                     -- stable number of the event type
    resource BLOB    NOT NULL CHECK (length(resource) = 16),       -- what its order is kept within
    key      BLOB    NOT NULL CHECK (length(key) = 16),            -- of the operation, or of the endpoint
    time     INTEGER NOT NULL,
    facts    TEXT NOT NULL,                            -- JSON; nothing that is private
    PRIMARY KEY (network, id)
) STRICT;

CREATE INDEX outbox_events_by_time ON outbox_events (network, time);

-- The last block whose events were written. It stays when the read model is projected anew: nobody is told twice.
CREATE TABLE outbox_cursors (
    network TEXT NOT NULL PRIMARY KEY,
    height  INTEGER NOT NULL
) STRICT;

-- What was projected before there was an outbox is told to nobody.
INSERT INTO outbox_cursors (network, height) SELECT network, height FROM projection_cursors;

CREATE TABLE webhook_deliveries (
    sequence    INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- the order within a resource
    network     TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    id          BLOB    NOT NULL CHECK (length(id) = 16),
    endpoint    BLOB    NOT NULL CHECK (length(endpoint) = 16),
    event       BLOB    NOT NULL CHECK (length(event) = 16),
    resource    BLOB    NOT NULL CHECK (length(resource) = 16),
    event_time  INTEGER NOT NULL,
    state       INTEGER NOT NULL,                                  -- 0 pending, 1 delivered, 2 dead
    attempts    INTEGER NOT NULL,                                  -- since it was due first, or was replayed
    next_at     INTEGER NOT NULL,                                  -- while claimed: when the claim is over
    claim       BLOB    CHECK (length(claim) = 16),
    last_status INTEGER,
    ended_at    INTEGER
) STRICT;

CREATE UNIQUE INDEX webhook_deliveries_by_id ON webhook_deliveries (network, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (network, next_at, endpoint) WHERE state = 0;
CREATE INDEX webhook_deliveries_in_order ON webhook_deliveries (network, endpoint, resource, sequence) WHERE state = 0;
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (network, endpoint, sequence);
CREATE INDEX webhook_deliveries_next ON webhook_deliveries (network, endpoint, sequence) WHERE state = 0;
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (network, event);
CREATE INDEX webhook_deliveries_by_tenant ON webhook_deliveries (network, tenant, sequence);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (network, ended_at) WHERE state <> 0;

CREATE TABLE webhook_attempts (
    delivery INTEGER NOT NULL REFERENCES webhook_deliveries (sequence) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    number   INTEGER NOT NULL,                                     -- from 1, anew after a replay
    network  TEXT NOT NULL,
    tenant   TEXT NOT NULL,
    outcome  INTEGER NOT NULL,                                     -- stable number
    status   INTEGER,                                              -- of HTTP, if there was an answer
    detail   TEXT NOT NULL,
    took_ms  INTEGER NOT NULL,
    PRIMARY KEY (delivery, at, number)
) STRICT;
