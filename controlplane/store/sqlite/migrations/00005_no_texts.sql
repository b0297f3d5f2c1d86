-- +goose Up
-- Searches read the columns: an index of the texts' pieces made each write slower.
DROP TRIGGER texts_delete;
DROP TRIGGER texts_update;
DROP TRIGGER texts_insert;
DROP TABLE texts;
-- The newest of equal indexes is used: what has to read all of a kind reads the table from
-- its begin to its end.
DROP INDEX documents_kind;
CREATE INDEX documents_kind ON documents (kind);

-- +goose Down
SELECT 'the index of texts is not made again' WHERE FALSE;
