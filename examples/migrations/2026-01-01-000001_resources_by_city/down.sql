DELETE FROM resources WHERE client_key = 'migration-1';
DROP INDEX resources_by_city;
