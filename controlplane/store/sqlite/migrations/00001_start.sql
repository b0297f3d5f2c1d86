-- +goose Up
-- documents holds what is filtered and sorted by; the JSON itself lies in bodies, so that
-- a scan of many documents stays within few pages.
CREATE TABLE documents (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    kind           TEXT NOT NULL,
    id             TEXT NOT NULL,
    name           TEXT,
    basename       TEXT,
    comment        TEXT,
    project        TEXT,
    parent         TEXT,
    task           TEXT,
    user           TEXT,
    company        TEXT,
    type           TEXT,
    status         TEXT,
    framework      TEXT,
    uri            TEXT,
    ready          INTEGER,
    created        TEXT,
    started        TEXT,
    status_changed TEXT,
    last_update    TEXT,
    last_change    TEXT,
    last_iteration REAL,
    UNIQUE (kind, id)
);
-- The place in the table ends each index: documents_kind gives the order of insertion.
-- Those that end in the id, which breaks ties, answer a sorted list without the table.
CREATE INDEX documents_kind ON documents (kind);
CREATE INDEX documents_name ON documents (kind, name, id);
CREATE INDEX documents_project ON documents (kind, project, last_update, id);
CREATE INDEX documents_parent ON documents (kind, parent);
CREATE INDEX documents_task ON documents (kind, task);
CREATE INDEX documents_type ON documents (kind, type, status, last_update);
CREATE INDEX documents_status ON documents (kind, status, last_update);
CREATE INDEX documents_uri ON documents (kind, uri);
CREATE INDEX documents_created ON documents (kind, created, id);
CREATE INDEX documents_last_update ON documents (kind, last_update, id);

CREATE TABLE bodies (
    seq  INTEGER PRIMARY KEY,
    body TEXT NOT NULL
);

-- terms holds the elements of lists, such as tags.
CREATE TABLE terms (
    kind  TEXT NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (kind, field, value, seq)
) WITHOUT ROWID;
CREATE INDEX terms_seq ON terms (seq);

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    task    TEXT NOT NULL,
    type    TEXT NOT NULL,
    metric  TEXT NOT NULL,
    variant TEXT NOT NULL,
    iter    INTEGER NOT NULL,
    ts      INTEGER NOT NULL,
    body    TEXT NOT NULL
);
CREATE INDEX events_time ON events (task, type, ts, seq);
CREATE INDEX events_series ON events (task, type, metric, variant, iter);

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE settings;
DROP TABLE events;
DROP TABLE terms;
DROP TABLE bodies;
DROP TABLE documents;
