ALTER TABLE tenants DROP COLUMN signatures_required;
DROP TABLE signing_keys;
