-- What a tenant may use, and from where a key may be used. NULL, and an empty list: no bound of this kind.
ALTER TABLE tenants ADD COLUMN requests_per_second INTEGER;
ALTER TABLE tenants ADD COLUMN requests_burst INTEGER;
ALTER TABLE tenants ADD COLUMN records_per_day INTEGER;
-- Networks in CIDR notation, comma-separated.
ALTER TABLE api_keys ADD COLUMN allowed_networks TEXT NOT NULL DEFAULT '';
