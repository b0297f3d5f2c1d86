-- +goose Up
-- texts is the index of searches within names, ids, and comments: each piece of three
-- characters, without places and without the texts themselves.
CREATE VIRTUAL TABLE texts USING fts5 (
    name, id, comment,
    content = '', contentless_delete = 1, detail = column, tokenize = 'trigram'
);
INSERT INTO texts (rowid, name, id, comment) SELECT seq, name, id, comment FROM documents;

-- +goose StatementBegin
CREATE TRIGGER texts_insert AFTER INSERT ON documents BEGIN
    INSERT INTO texts (rowid, name, id, comment) VALUES (new.seq, new.name, new.id, new.comment);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER texts_update AFTER UPDATE ON documents
WHEN old.name IS NOT new.name OR old.comment IS NOT new.comment BEGIN
    DELETE FROM texts WHERE rowid = old.seq;
    INSERT INTO texts (rowid, name, id, comment) VALUES (new.seq, new.name, new.id, new.comment);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER texts_delete AFTER DELETE ON documents BEGIN
    DELETE FROM texts WHERE rowid = old.seq;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER texts_delete;
DROP TRIGGER texts_update;
DROP TRIGGER texts_insert;
DROP TABLE texts;
