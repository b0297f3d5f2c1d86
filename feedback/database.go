package feedback

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite" // registers the driver

	"clearmlserving/serving"
)

const (
	maxInstances = 64      // that share a folder
	maxPending   = 100_000 // truths without a prediction, of one endpoint
	keepSums     = 366 * 24 * time.Hour
	showSums     = 31 * 24 * time.Hour // as metrics, of versions that are no longer served
	busyCode     = 5                   // SQLITE_BUSY
	damagedCode  = 11                  // SQLITE_CORRUPT
	foreignCode  = 26                  // SQLITE_NOTADB
)

// schema has a number, so that a later version can change it.
const (
	schemaVersion = 1
	schema        = `
CREATE TABLE predictions (
  key TEXT NOT NULL,
  asked TEXT NOT NULL,
  answered TEXT NOT NULL,
  model TEXT NOT NULL,
  at INTEGER NOT NULL,    -- of the request, in milliseconds
  rows TEXT NOT NULL,
  size INTEGER NOT NULL,
  truth TEXT,             -- NULL until it is joined
  joined INTEGER,         -- the number of the join
  PRIMARY KEY (key, asked)
) WITHOUT ROWID;
CREATE INDEX predictions_age ON predictions (asked, at);
CREATE UNIQUE INDEX predictions_joined ON predictions (joined) WHERE joined IS NOT NULL;
CREATE TABLE pending (
  key TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  at INTEGER NOT NULL,
  truth TEXT NOT NULL,
  tries INTEGER NOT NULL, -- offers to other instances
  next INTEGER NOT NULL,  -- the time of the next one
  PRIMARY KEY (key, endpoint)
) WITHOUT ROWID;
CREATE INDEX pending_age ON pending (endpoint, at);
CREATE INDEX pending_next ON pending (next);
CREATE TABLE totals (url TEXT NOT NULL, day INTEGER NOT NULL, sums TEXT NOT NULL, PRIMARY KEY (url, day)) WITHOUT ROWID;
CREATE TABLE counts (url TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (url, name)) WITHOUT ROWID;
PRAGMA user_version = 1;`
)

// fileEnds are the ends of the names of a database's files.
var fileEnds = []string{"", "-wal", "-shm"} //nolint:gochecknoglobals // a constant

// day0 is the "day" of the totals since the beginning.
const day0 = 0

// totalsKey is the identity of a sum.
type totalsKey struct {
	url serving.EndpointURL
	day int64 // days since 1970, day0 for all
}

// countKey is the identity of a counter.
type countKey struct {
	url  serving.EndpointURL
	name string
}

// The persistent counters.
const (
	countKept      = "kept"      // predictions
	countJoined    = "joined"    // truths, as those below
	countDuplicate = "duplicate" // there was one already
	countUnmatched = "unmatched" // no prediction came within the retention
	countMismatch  = "mismatch"  // of another type or number than the prediction
	countElsewhere = "elsewhere" // another instance has joined it
	countSkipped   = "skipped:"  // with the reason
)

// database is the file of one instance. One goroutine at a time writes it.
type database struct {
	path string
	is   map[string]os.FileInfo // the file and its log, when they were opened
	db   *sql.DB
	now  func() time.Time

	state   sync.RWMutex // guards the fields below; it is never held during I/O
	totals  map[totalsKey]*Totals
	counts  map[countKey]uint64
	windows map[serving.EndpointURL]*window
	joins   int64                         // the last number of a join
	bytes   map[serving.EndpointURL]int64 // of kept predictions, by requested endpoint
	kept    map[serving.EndpointURL]int64 // their number
	waiting map[serving.EndpointURL]int64 // pending truths
}

// openFree opens the first file of the folder that no other instance uses. A damaged file is
// renamed.
func openFree(dir string, now func() time.Time, log *slog.Logger) (*database, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i := 1; i <= maxInstances; i++ {
		path := filepath.Join(dir, fmt.Sprintf("feedback-%d.db", i))
		d, err := open(path, now)
		if code := sqliteCode(err); code == damagedCode || code == foreignCode || errors.Is(err, errNoFile) {
			log.Error("feedback file set aside, because it is damaged", "file", path, "err", err)
			if err := setAside(path); err != nil {
				return nil, err
			}
			d, err = open(path, now)
		}
		if sqliteCode(err) == busyCode {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return d, nil
	}
	return nil, fmt.Errorf("all %d files in %s are in use by other instances", maxInstances, dir)
}

// fileIn reports whether a folder has a file of an earlier process.
func fileIn(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "feedback-*.db"))
	return err == nil && len(found) > 0
}

// setAside renames a file that no process uses.
func setAside(path string) error {
	for _, end := range fileEnds {
		if err := os.RemoveAll(path + ".damaged" + end); err != nil { // a folder cannot be replaced by a file
			return err
		}
		if err := os.Rename(path+end, path+".damaged"+end); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// gone reports whether something else has removed or replaced the file, so that what is written is lost.
func (d *database) gone() bool {
	for path, opened := range d.is {
		if now, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) || (err == nil && !os.SameFile(opened, now)) {
			return true
		}
	}
	return false
}

// sqliteCode is the primary code of SQLite's error, 0 for others.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

var errNoFile = errors.New("it is not a regular file")

func open(path string, now func() time.Time) (_ *database, err error) {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, errNoFile
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // with permissions for this user only
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // a drive letter
	}
	address := url.URL{Scheme: "file", Path: slashed}
	// Exclusive: another instance that shares the folder takes another file. NORMAL: a killed process
	// loses nothing, a power failure at most the last commits.
	db, err := sql.Open("sqlite", address.String()+"?_pragma=locking_mode(EXCLUSIVE)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-8000)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	db.SetConnMaxLifetime(0)
	d := &database{path: path, is: map[string]os.FileInfo{}, db: db, now: now}
	if err := d.load(context.Background()); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	for _, end := range fileEnds {
		if info, err := os.Lstat(path + end); err == nil {
			d.is[path+end] = info
		}
	}
	return d, nil
}

func (d *database) close() {
	_ = d.db.Close() // every commit is in the file
}

// load creates the tables if they are missing, and reads the sums.
func (d *database) load(ctx context.Context) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == 0:
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
	case version > schemaVersion:
		return fmt.Errorf("it was written by a newer release (format %d, this one reads %d)", version, schemaVersion)
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	d.totals, d.counts = map[totalsKey]*Totals{}, map[countKey]uint64{}
	err = d.each(ctx, "SELECT url, day, sums FROM totals", func(rows *sql.Rows) error {
		var key totalsKey
		var sums []byte
		if err := rows.Scan(&key.url, &key.day, &sums); err != nil {
			return err
		}
		t := &Totals{}
		d.totals[key] = t
		return json.Unmarshal(sums, t)
	})
	if err == nil {
		err = d.each(ctx, "SELECT url, name, n FROM counts", func(rows *sql.Rows) error {
			var key countKey
			var n int64
			err := rows.Scan(&key.url, &key.name, &n)
			d.counts[key] = uint64(n) //nolint:gosec // it was stored from one
			return err
		})
	}
	if err == nil {
		err = d.measure(ctx)
	}
	if err == nil {
		err = d.loadWindows(ctx)
	}
	return err
}

// measure counts what is kept.
func (d *database) measure(ctx context.Context) error {
	d.bytes, d.kept, d.waiting = map[serving.EndpointURL]int64{}, map[serving.EndpointURL]int64{}, map[serving.EndpointURL]int64{}
	err := d.each(ctx, "SELECT asked, SUM(size), COUNT(*) FROM predictions GROUP BY asked", func(rows *sql.Rows) error {
		var asked serving.EndpointURL
		var size, n int64
		err := rows.Scan(&asked, &size, &n)
		d.bytes[asked], d.kept[asked] = size, n
		return err
	})
	if err != nil {
		return err
	}
	return d.each(ctx, "SELECT endpoint, COUNT(*) FROM pending GROUP BY endpoint", func(rows *sql.Rows) error {
		var endpoint serving.EndpointURL
		var n int64
		err := rows.Scan(&endpoint, &n)
		d.waiting[endpoint] = n
		return err
	})
}

// loadWindows reads the newest joined rows of all endpoints.
func (d *database) loadWindows(ctx context.Context) error {
	const most = 100 * windowRows
	d.windows = map[serving.EndpointURL]*window{}
	type join struct {
		url        serving.EndpointURL
		rows, true []byte
	}
	var joins []join
	err := d.each(ctx, "SELECT answered, rows, truth, joined FROM predictions WHERE joined IS NOT NULL ORDER BY joined DESC LIMIT ?", func(rows *sql.Rows) error {
		var j join
		var number int64
		err := rows.Scan(&j.url, &j.rows, &j.true, &number)
		d.joins = max(d.joins, number)
		joins = append(joins, j)
		return err
	}, most)
	if err != nil {
		return err
	}
	for _, j := range slices.Backward(joins) { // the oldest first
		var predictions []Prediction
		var truths []Truth
		if err := errors.Join(json.Unmarshal(j.rows, &predictions), json.Unmarshal(j.true, &truths)); err != nil {
			return err
		}
		w := d.windows[j.url]
		if w == nil {
			w = &window{}
			d.windows[j.url] = w
		}
		for k := range min(len(predictions), len(truths)) {
			w.add(row{predictions[k], truths[k]})
		}
	}
	return nil
}

// each calls scan for each row.
func (d *database) each(ctx context.Context, query string, scan func(*sql.Rows) error, args ...any) error {
	rows, err := d.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}

// scanAll calls scan for each row, and closes the rows.
func scanAll(rows *sql.Rows, scan func(*sql.Rows) error) (err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// row is a joined row.
type row struct {
	prediction Prediction
	truth      Truth
}

// window has the newest joined rows of an endpoint.
type window struct {
	rows []row
	next int // the oldest, once it is full
}

func (w *window) add(r row) {
	if len(w.rows) < windowRows {
		w.rows = append(w.rows, r)
		return
	}
	w.rows[w.next] = r
	w.next = (w.next + 1) % windowRows
}

// totals sums up the rows.
func (w *window) totals(positive string) Totals {
	t := Totals{}
	for _, r := range w.rows {
		t.add(r.prediction, r.truth, positive)
	}
	return t
}
