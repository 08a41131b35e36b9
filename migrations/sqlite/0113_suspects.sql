-- An export that looks cut, and that no second reading confirms, is taken when three attempts in a
-- row have seen it. What the column holds, PostgreSQL's migration 0013_suspects.sql describes. Here
-- no other process records attempts beside this one.

ALTER TABLE device_state ADD COLUMN suspect TEXT
    CHECK (json_valid(suspect) AND json_type(suspect) = 'object');
