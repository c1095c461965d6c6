DROP TABLE case_links;
DROP TABLE projection_cursors;
