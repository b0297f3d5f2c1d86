-- +goose Up
-- Searches read the columns: the index of texts made each write slower.
DROP INDEX IF EXISTS documents_texts;

-- +goose Down
SELECT 'the index of texts is not made again' WHERE FALSE;
