-- +goose Up
-- Find the models of a framework and the published ones: often there are few, or none.
CREATE INDEX documents_framework ON documents (kind, framework);
CREATE INDEX documents_ready ON documents (kind, ready);

-- +goose Down
DROP INDEX documents_ready;
DROP INDEX documents_framework;
