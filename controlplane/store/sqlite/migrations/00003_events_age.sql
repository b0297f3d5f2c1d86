-- +goose Up
-- Finds the events that are older than what is kept.
CREATE INDEX events_age ON events (ts);

-- +goose Down
DROP INDEX events_age;
