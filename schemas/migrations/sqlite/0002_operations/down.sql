DROP TABLE private_parts;
DROP TABLE operations;
