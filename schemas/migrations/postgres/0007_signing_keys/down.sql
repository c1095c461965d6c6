REVOKE UPDATE (signatures_required) ON tenants FROM chopmark_admin;
ALTER TABLE tenants DROP COLUMN signatures_required;
DROP TABLE signing_keys;
