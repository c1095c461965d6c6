DROP TABLE private_parts;
DROP TABLE operations;
DROP SEQUENCE operation_sequence;
