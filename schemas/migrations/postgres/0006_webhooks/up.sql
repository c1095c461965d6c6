-- Webhooks (docs/adr/0022-webhooks.md): where tenants want to be told, what happened, and what came of telling them.
-- No part of the public read model: nothing here is dropped when that is projected anew.

CREATE TABLE webhook_endpoints (
    network         TEXT COLLATE "C" NOT NULL,
    id              BYTEA   NOT NULL CHECK (length(id) = 16),
    tenant          TEXT COLLATE "C" NOT NULL,
    request         BYTEA   NOT NULL CHECK (length(request) = 32), -- keyed digest of the request that made it
    url             TEXT COLLATE "C" NOT NULL,
    events          TEXT COLLATE "C" NOT NULL,                     -- names, comma-separated, sorted; empty: all
    description     TEXT COLLATE "C",
    secret          BYTEA   NOT NULL,                              -- under the key-encryption key, as the next
    previous_secret BYTEA,                                         -- signs too, until the time below
    previous_until  BIGINT,
    state           INTEGER NOT NULL,                              -- 0 enabled; else why not: 1 by its tenant, 2 gone (410), 3 failing
    disabled_at     BIGINT,
    failing_since   BIGINT,                                        -- since when nothing has been delivered
    created_at      BIGINT  NOT NULL,
    version         BIGINT  NOT NULL,                              -- counts what its tenant changed
    PRIMARY KEY (network, id),
    FOREIGN KEY (network, tenant) REFERENCES tenants (network, id)
);

CREATE INDEX webhook_endpoints_by_tenant ON webhook_endpoints (network, tenant);

-- Events of tenants that have an endpoint. The id follows from what happened, so that the same comes once.
CREATE TABLE outbox_events (
    network  TEXT COLLATE "C" NOT NULL,
    id       BYTEA   NOT NULL CHECK (length(id) = 16),
    tenant   TEXT COLLATE "C" NOT NULL,
    kind     INTEGER NOT NULL,                                     -- stable number of the event type
    resource BYTEA   NOT NULL CHECK (length(resource) = 16),       -- what its order is kept within
    key      BYTEA   NOT NULL CHECK (length(key) = 16),            -- of the operation, or of the endpoint
    time     BIGINT  NOT NULL,
    facts    TEXT COLLATE "C" NOT NULL,                            -- JSON; nothing that is private
    PRIMARY KEY (network, id)
);

CREATE INDEX outbox_events_by_time ON outbox_events (network, time);

-- The last block whose events were written. It stays when the read model is projected anew: nobody is told twice.
CREATE TABLE outbox_cursors (
    network TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    height  BIGINT NOT NULL
);

-- What was projected before there was an outbox is told to nobody.
INSERT INTO outbox_cursors (network, height) SELECT network, height FROM projection_cursors;

CREATE TABLE webhook_deliveries (
    sequence    BIGINT  NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order within a resource
    network     TEXT COLLATE "C" NOT NULL,
    tenant      TEXT COLLATE "C" NOT NULL,
    id          BYTEA   NOT NULL CHECK (length(id) = 16),
    endpoint    BYTEA   NOT NULL CHECK (length(endpoint) = 16),
    event       BYTEA   NOT NULL CHECK (length(event) = 16),
    resource    BYTEA   NOT NULL CHECK (length(resource) = 16),
    event_time  BIGINT  NOT NULL,
    state       INTEGER NOT NULL,                                  -- 0 pending, 1 delivered, 2 dead
    attempts    INTEGER NOT NULL,                                  -- since it was due first, or was replayed
    next_at     BIGINT  NOT NULL,                                  -- while claimed: when the claim is over
    claim       BYTEA   CHECK (length(claim) = 16),
    last_status INTEGER,
    ended_at    BIGINT
);

CREATE UNIQUE INDEX webhook_deliveries_by_id ON webhook_deliveries (network, id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (network, next_at, endpoint) WHERE state = 0;
CREATE INDEX webhook_deliveries_in_order ON webhook_deliveries (network, endpoint, resource, sequence) WHERE state = 0;
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (network, endpoint, sequence);
CREATE INDEX webhook_deliveries_next ON webhook_deliveries (network, endpoint, sequence) WHERE state = 0;
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (network, event);
CREATE INDEX webhook_deliveries_by_tenant ON webhook_deliveries (network, tenant, sequence);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (network, ended_at) WHERE state <> 0;

CREATE TABLE webhook_attempts (
    delivery BIGINT  NOT NULL REFERENCES webhook_deliveries (sequence) ON DELETE CASCADE,
    at       BIGINT  NOT NULL,
    number   INTEGER NOT NULL,                                     -- from 1, anew after a replay
    network  TEXT COLLATE "C" NOT NULL,
    tenant   TEXT COLLATE "C" NOT NULL,
    outcome  INTEGER NOT NULL,                                     -- stable number
    status   INTEGER,                                              -- of HTTP, if there was an answer
    detail   TEXT COLLATE "C" NOT NULL,
    took_ms  BIGINT  NOT NULL,
    PRIMARY KEY (delivery, at, number)
);

ALTER TABLE webhook_endpoints  ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE outbox_events      ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE webhook_attempts   ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- A gateway keeps one tenant's endpoints, and sends again what was sent.
CREATE POLICY one_tenant ON webhook_endpoints TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')))
    WITH CHECK (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));
CREATE POLICY one_tenant ON outbox_events TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')))
    WITH CHECK (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));
CREATE POLICY one_tenant ON webhook_deliveries TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')))
    WITH CHECK (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));
CREATE POLICY one_tenant ON webhook_attempts FOR SELECT TO chopmark_app
    USING (network = (SELECT acting_for('network')) AND tenant = (SELECT acting_for('tenant')));

GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints TO chopmark_app;
GRANT SELECT, INSERT ON outbox_events TO chopmark_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO chopmark_app;
GRANT SELECT ON webhook_attempts TO chopmark_app;

-- A committer writes what happened, and sees where it is wanted but no secret.
CREATE POLICY every_tenants_committer ON webhook_endpoints FOR SELECT TO chopmark_committer USING (true);
CREATE POLICY every_tenants_committer ON outbox_events TO chopmark_committer USING (true) WITH CHECK (true);
CREATE POLICY every_tenants_committer ON webhook_deliveries TO chopmark_committer USING (true) WITH CHECK (true);

GRANT SELECT (network, id, tenant, events, state) ON webhook_endpoints TO chopmark_committer;
GRANT SELECT, INSERT ON outbox_events TO chopmark_committer;
GRANT SELECT (network, id), INSERT ON webhook_deliveries TO chopmark_committer;
GRANT SELECT, INSERT, UPDATE ON outbox_cursors TO chopmark_committer;

-- A courier tells, and sees no operation, no private part and no API key.
CREATE POLICY every_tenants_courier ON webhook_endpoints TO chopmark_courier USING (true) WITH CHECK (true);
CREATE POLICY every_tenants_courier ON outbox_events TO chopmark_courier USING (true) WITH CHECK (true);
CREATE POLICY every_tenants_courier ON webhook_deliveries TO chopmark_courier USING (true) WITH CHECK (true);
CREATE POLICY every_tenants_courier ON webhook_attempts TO chopmark_courier USING (true) WITH CHECK (true);

GRANT SELECT, UPDATE (state, disabled_at, failing_since, version) ON webhook_endpoints TO chopmark_courier;
GRANT SELECT, INSERT, DELETE ON outbox_events TO chopmark_courier;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_deliveries TO chopmark_courier;
GRANT SELECT, INSERT, DELETE ON webhook_attempts TO chopmark_courier;
GRANT SELECT ON __diesel_schema_migrations TO chopmark_courier;
