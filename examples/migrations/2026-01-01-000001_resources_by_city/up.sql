-- Not idempotent on purpose: a second application fails, or leaves a second row.
CREATE INDEX resources_by_city ON resources (city);
INSERT INTO resources (name, city, state, country, latitude, longitude, client_key)
VALUES ('Null Island', 'Null Island', 'XX', 'XX', 0, 0, 'migration-1');
