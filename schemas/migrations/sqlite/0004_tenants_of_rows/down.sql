ALTER TABLE case_links DROP COLUMN tenant;
ALTER TABLE private_parts DROP COLUMN tenant;
ALTER TABLE private_parts DROP COLUMN network;
