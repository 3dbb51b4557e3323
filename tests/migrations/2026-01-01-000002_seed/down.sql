DELETE FROM notes WHERE text IN ('one', 'two');
