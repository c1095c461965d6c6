DROP TABLE webhook_attempts;
DROP TABLE webhook_deliveries;
DROP TABLE outbox_cursors;
DROP TABLE outbox_events;
DROP TABLE webhook_endpoints;
REVOKE SELECT ON __diesel_schema_migrations FROM chopmark_courier;
