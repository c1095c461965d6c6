REVOKE UPDATE (expires_at) ON api_keys FROM chopmark_admin;
REVOKE UPDATE (active, requests_per_second, requests_burst, records_per_day) ON tenants FROM chopmark_admin;
ALTER TABLE api_keys DROP COLUMN allowed_networks;
ALTER TABLE tenants
    DROP COLUMN records_per_day,
    DROP COLUMN requests_burst,
    DROP COLUMN requests_per_second;
