-- The tenant of every row that is a tenant's, in the row itself: a condition on a row is then all
-- that keeps tenants apart, here in the queries, in PostgreSQL by row-level security too.

-- A private part is of the tenant whose attempt it is, which may be another than that of the operation.
ALTER TABLE private_parts ADD COLUMN network TEXT NOT NULL DEFAULT '';
ALTER TABLE private_parts ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE private_parts SET (network, tenant) =
    (SELECT network, tenant FROM operations WHERE operations.sequence = private_parts.sequence);

ALTER TABLE case_links ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE case_links SET tenant = coalesce(
    (SELECT tenant FROM operations WHERE operations.network = case_links.network AND operations.key = case_links.case_key),
    '');
