ALTER TABLE api_keys DROP COLUMN allowed_networks;
ALTER TABLE tenants DROP COLUMN records_per_day;
ALTER TABLE tenants DROP COLUMN requests_burst;
ALTER TABLE tenants DROP COLUMN requests_per_second;
