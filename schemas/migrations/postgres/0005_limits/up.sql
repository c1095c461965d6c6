-- What a tenant may use, and from where a key may be used. NULL, and an empty list: no bound of this kind.
ALTER TABLE tenants
    ADD COLUMN requests_per_second BIGINT,
    ADD COLUMN requests_burst BIGINT,
    ADD COLUMN records_per_day BIGINT;
-- Networks in CIDR notation, comma-separated.
ALTER TABLE api_keys ADD COLUMN allowed_networks TEXT COLLATE "C" NOT NULL DEFAULT '';

GRANT UPDATE (active, requests_per_second, requests_burst, records_per_day) ON tenants TO chopmark_admin;
GRANT UPDATE (expires_at) ON api_keys TO chopmark_admin;
