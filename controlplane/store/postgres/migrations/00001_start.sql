-- +goose Up
-- documents holds what is filtered and sorted by; the JSON itself lies in bodies, so that
-- a scan of many documents stays within few pages. Texts are ordered by their bytes, as
-- everywhere in this program.
CREATE TABLE documents (
    seq            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    name           TEXT COLLATE "C",
    basename       TEXT COLLATE "C",
    comment        TEXT COLLATE "C",
    project        TEXT COLLATE "C",
    parent         TEXT COLLATE "C",
    task           TEXT COLLATE "C",
    "user"         TEXT COLLATE "C",
    company        TEXT COLLATE "C",
    type           TEXT COLLATE "C",
    status         TEXT COLLATE "C",
    framework      TEXT COLLATE "C",
    uri            TEXT COLLATE "C",
    ready          BOOLEAN,
    created        TEXT COLLATE "C",
    started        TEXT COLLATE "C",
    status_changed TEXT COLLATE "C",
    last_update    TEXT COLLATE "C",
    last_change    TEXT COLLATE "C",
    last_iteration DOUBLE PRECISION,
    UNIQUE (kind, id)
);
-- An index entry holds some 2,700 bytes at most: longer names and tags are refused, see
-- store.ErrTooLong. Addresses can be longer: theirs is an index of hashes.
CREATE INDEX documents_kind ON documents (kind, seq);
CREATE INDEX documents_name ON documents (kind, name, id);
CREATE INDEX documents_uri ON documents USING hash (uri);
CREATE INDEX documents_project ON documents (kind, project, last_update DESC NULLS LAST, id);
CREATE INDEX documents_parent ON documents (kind, parent);
CREATE INDEX documents_task ON documents (kind, task);
CREATE INDEX documents_type ON documents (kind, type, status, last_update DESC NULLS LAST, id);
CREATE INDEX documents_status ON documents (kind, status, last_update DESC NULLS LAST, id);
CREATE INDEX documents_created ON documents (kind, created, id);
CREATE INDEX documents_created_newest ON documents (kind, created DESC NULLS LAST, id);
CREATE INDEX documents_last_update ON documents (kind, last_update, id);
CREATE INDEX documents_last_update_newest ON documents (kind, last_update DESC NULLS LAST, id);

CREATE TABLE bodies (
    seq  BIGINT PRIMARY KEY,
    body TEXT NOT NULL
);

-- terms holds the elements of lists, such as tags.
CREATE TABLE terms (
    kind  TEXT COLLATE "C" NOT NULL,
    field TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    seq   BIGINT NOT NULL,
    PRIMARY KEY (kind, field, value, seq)
);
CREATE INDEX terms_seq ON terms (seq);

CREATE TABLE events (
    seq     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id      TEXT COLLATE "C" NOT NULL UNIQUE,
    task    TEXT COLLATE "C" NOT NULL,
    type    TEXT COLLATE "C" NOT NULL,
    metric  TEXT COLLATE "C" NOT NULL,
    variant TEXT COLLATE "C" NOT NULL,
    iter    BIGINT NOT NULL,
    ts      BIGINT NOT NULL,
    body    TEXT NOT NULL
);
CREATE INDEX events_time ON events (task, type, ts, seq);
CREATE INDEX events_series ON events (task, type, metric, variant, iter);
CREATE INDEX events_age ON events (ts);

CREATE TABLE settings (
    "key" TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

-- +goose Down
DROP TABLE settings;
DROP TABLE events;
DROP TABLE terms;
DROP TABLE bodies;
DROP TABLE documents;
