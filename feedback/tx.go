package feedback

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"clearmlserving/serving"
)

// tx is one transaction. What it changes in memory becomes visible with its commit.
type tx struct {
	*sql.Tx

	ctx      context.Context //nolint:containedctx // of the transaction
	d        *database
	now      time.Time
	prepared map[string]*sql.Stmt

	totals  map[totalsKey]*Totals
	removed []totalsKey
	counts  map[countKey]uint64
	joined  []joinedRows
	joins   int64
	bytes   map[serving.EndpointURL]int64 // differences, as those below
	kept    map[serving.EndpointURL]int64
	waiting map[serving.EndpointURL]int64
}

type joinedRows struct {
	url  serving.EndpointURL
	rows []row
}

// write runs a transaction and applies its changes in memory.
func (d *database) write(change func(*tx) error) (err error) {
	ctx := context.Background()
	begun, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	t := &tx{
		Tx: begun, ctx: ctx, d: d, now: d.now(), prepared: map[string]*sql.Stmt{}, totals: map[totalsKey]*Totals{}, counts: map[countKey]uint64{}, joins: d.joins,
		bytes: map[serving.EndpointURL]int64{}, kept: map[serving.EndpointURL]int64{}, waiting: map[serving.EndpointURL]int64{},
	}
	defer func() {
		if err != nil {
			_ = begun.Rollback() // the first error is the one that counts
		}
	}()
	if err := change(t); err != nil {
		return err
	}
	if err := t.store(); err != nil {
		return err
	}
	if err := begun.Commit(); err != nil {
		return err
	}
	d.apply(t)
	return nil
}

// exec runs a statement that changes rows, and returns their number.
func (t *tx) exec(query string, args ...any) (int64, error) {
	stmt, err := t.statement(query) //nolint:sqlclosecheck // the transaction closes it
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// each calls scan for each row of a query.
func (t *tx) each(query string, scan func(*sql.Rows) error, args ...any) error {
	stmt, err := t.statement(query) //nolint:sqlclosecheck // the transaction closes it
	if err != nil {
		return err
	}
	rows, err := stmt.QueryContext(t.ctx, args...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}

// statement prepares a statement once.
func (t *tx) statement(query string) (*sql.Stmt, error) {
	if stmt := t.prepared[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := t.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, err
	}
	t.prepared[query] = stmt
	return stmt, nil
}

// store writes the changed sums and counters.
func (t *tx) store() error {
	for key, sums := range t.totals {
		text, err := json.Marshal(sums)
		if err != nil {
			return err
		}
		if _, err := t.exec("INSERT OR REPLACE INTO totals (url, day, sums) VALUES (?, ?, ?)", string(key.url), key.day, text); err != nil {
			return err
		}
	}
	for key, n := range t.counts {
		if _, err := t.exec("INSERT INTO counts (url, name, n) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", string(key.url), key.name, int64(n)); err != nil { //nolint:gosec // it is small
			return err
		}
	}
	return nil
}

// apply makes the changes of a committed transaction visible.
func (d *database) apply(t *tx) {
	d.state.Lock()
	defer d.state.Unlock()
	maps.Copy(d.totals, t.totals)
	for _, key := range t.removed {
		delete(d.totals, key)
		if key.day == day0 {
			delete(d.windows, key.url)
		}
	}
	for key, n := range t.counts {
		d.counts[key] += n
	}
	for _, j := range t.joined {
		w := d.windows[j.url]
		if w == nil {
			w = &window{}
			d.windows[j.url] = w
		}
		for _, r := range j.rows {
			w.add(r)
		}
	}
	d.joins = t.joins
	for url, n := range t.bytes {
		d.bytes[url] += n
	}
	for url, n := range t.kept {
		d.kept[url] += n
	}
	for url, n := range t.waiting {
		d.waiting[url] += n
	}
}

func (t *tx) count(url serving.EndpointURL, name string, n uint64) {
	if n > 0 {
		t.counts[countKey{url, name}] += n
	}
}

// sums returns the sums of an endpoint's day, to be changed.
func (t *tx) sums(key totalsKey) *Totals {
	if sums := t.totals[key]; sums != nil {
		return sums
	}
	sums := &Totals{}
	if before := t.d.totals[key]; before != nil {
		sums = before.clone()
	}
	t.totals[key] = sums
	return sums
}

// keep stores the predictions of an observed request, and joins truths that came before them.
func (t *tx) keep(o serving.Observed, f *serving.Feedback) error {
	answered := o.Answerer()
	units, scoreless, err := predictionsOf(o, f)
	if reason, ok := errors.AsType[skipError](err); ok {
		t.count(answered, countSkipped+string(reason), 1)
		return nil
	}
	if scoreless {
		t.count(answered, countSkipped+string(skipScore), 1)
	}
	for _, u := range units {
		text, err := json.Marshal(u.rows)
		if err != nil {
			return err
		}
		if len(text) > maxKept {
			t.count(answered, countSkipped+string(skipSize), 1)
			continue
		}
		p := prediction{key: u.key, asked: o.Endpoint, answered: answered, at: o.Time, rows: u.rows, size: int64(len(text) + len(u.key) + len(o.Endpoint) + len(answered) + 80)}
		if err := t.replace(p, string(o.ModelID), string(text)); err != nil {
			return err
		}
		if err := t.joinPending(p, f); err != nil {
			return err
		}
	}
	return nil
}

// prediction is a stored prediction.
type prediction struct {
	key             string
	asked, answered serving.EndpointURL
	at              time.Time
	rows            []Prediction
	size            int64
	joined          bool
}

// replace stores a prediction instead of an earlier one with the same key.
func (t *tx) replace(p prediction, model, rows string) error {
	if err := t.remove("key = ? AND asked = ?", p.key, string(p.asked)); err != nil {
		return err
	}
	_, err := t.exec("INSERT INTO predictions (key, asked, answered, model, at, rows, size) VALUES (?, ?, ?, ?, ?, ?, ?)",
		p.key, string(p.asked), string(p.answered), model, p.at.UnixMilli(), rows, p.size)
	t.bytes[p.asked] += p.size
	t.kept[p.asked]++
	t.count(p.answered, countKept, 1)
	return err
}

// remove deletes predictions.
func (t *tx) remove(where string, args ...any) error {
	return t.each("DELETE FROM predictions WHERE "+where+" RETURNING asked, size", func(rows *sql.Rows) error {
		var asked serving.EndpointURL
		var size int64
		err := rows.Scan(&asked, &size)
		t.bytes[asked] -= size
		t.kept[asked]--
		return err
	}, args...)
}

// joinPending joins the truths that came before a prediction.
func (t *tx) joinPending(p prediction, f *serving.Feedback) error {
	if len(t.d.waiting) == 0 && len(t.waiting) == 0 {
		return nil
	}
	type waiting struct {
		endpoint serving.EndpointURL
		text     []byte
	}
	var all []waiting
	err := t.each("SELECT endpoint, truth FROM pending WHERE key = ?", func(rows *sql.Rows) error {
		var w waiting
		err := rows.Scan(&w.endpoint, &w.text)
		if about(w.endpoint, p.asked, p.answered) {
			all = append(all, w)
		}
		return err
	}, p.key)
	if err != nil {
		return err
	}
	for _, w := range all {
		var truth []Truth
		if err := json.Unmarshal(w.text, &truth); err != nil {
			return err
		}
		if err := t.unqueue(p.key, w.endpoint); err != nil {
			return err
		}
		switch {
		case p.joined:
			t.count(w.endpoint, countDuplicate, 1)
		case mismatch(p.rows, truth) != "":
			t.count(w.endpoint, countMismatch, 1)
		default:
			if err := t.join(p, truth, f); err != nil {
				return err
			}
			t.count(w.endpoint, countJoined, 1)
			p.joined = true
		}
	}
	return nil
}

// unqueue removes a pending truth.
func (t *tx) unqueue(key string, endpoint serving.EndpointURL) error {
	n, err := t.exec("DELETE FROM pending WHERE key = ? AND endpoint = ?", key, string(endpoint))
	t.waiting[endpoint] -= n
	return err
}

// about reports whether feedback of an endpoint is about a prediction: it names the requested URL,
// the one that answered, or a URL above the requested one.
func about(endpoint, asked, answered serving.EndpointURL) bool {
	return endpoint == asked || endpoint == answered || strings.HasPrefix(string(asked), string(endpoint)+"/")
}

// mismatch says why truths cannot be those of predictions, "" if they can.
func mismatch(predicted []Prediction, truth []Truth) string {
	if len(predicted) != len(truth) {
		return fmt.Sprintf("has %d values, but %d were predicted", len(truth), len(predicted))
	}
	if (predicted[0].Number != nil) != (truth[0].Number != nil) {
		return "is of another type than the prediction: was the endpoint's task changed?"
	}
	return ""
}

// join adds a prediction and what was true to the sums.
func (t *tx) join(p prediction, truth []Truth, f *serving.Feedback) error {
	text, err := json.Marshal(truth)
	if err != nil {
		return err
	}
	t.joins++
	if _, err := t.exec("UPDATE predictions SET truth = ?, joined = ? WHERE key = ? AND asked = ?", string(text), t.joins, p.key, string(p.asked)); err != nil {
		return err
	}
	all, day := t.sums(totalsKey{p.answered, day0}), t.sums(totalsKey{p.answered, p.at.Unix() / 86400})
	j := joinedRows{url: p.answered}
	positive := canonical(f.Positive)
	for i, y := range truth {
		all.add(p.rows[i], y, positive)
		day.add(p.rows[i], y, positive)
		j.rows = append(j.rows, row{p.rows[i], y})
	}
	t.joined = append(t.joined, j)
	return nil
}

// find returns the newest prediction that feedback of an endpoint is about, nil if there is none.
func (t *tx) find(endpoint serving.EndpointURL, key string) (*prediction, error) {
	var best *prediction
	var text []byte
	err := t.each("SELECT asked, answered, at, rows, joined IS NOT NULL FROM predictions WHERE key = ?", func(rows *sql.Rows) error {
		p := prediction{key: key}
		var at int64
		var found []byte
		if err := rows.Scan(&p.asked, &p.answered, &at, &found, &p.joined); err != nil {
			return err
		}
		p.at = time.UnixMilli(at)
		if about(endpoint, p.asked, p.answered) && (best == nil || p.at.After(best.at)) {
			best, text = &p, found
		}
		return nil
	}, key)
	if err != nil || best == nil {
		return nil, err
	}
	return best, json.Unmarshal(text, &best.rows)
}

// wait stores a truth until its prediction comes. It reports whether there was none yet.
func (t *tx) wait(endpoint serving.EndpointURL, key string, truth []Truth) (bool, error) {
	text, err := json.Marshal(truth)
	if err != nil {
		return false, err
	}
	n, err := t.exec("INSERT OR IGNORE INTO pending (key, endpoint, at, truth, tries, next) VALUES (?, ?, ?, ?, 0, 0)", key, string(endpoint), t.now.UnixMilli(), string(text))
	t.waiting[endpoint] += n
	return n > 0, err
}

// tidy removes predictions and truths that exceed the time or the size of their endpoint. Those of
// endpoints without the option keep the default bounds.
func (t *tx) tidy(plan *table) error {
	for asked, size := range t.d.bytes {
		f := plan.option(asked, asked)
		if f == nil {
			f = &serving.Feedback{}
		}
		if err := t.remove("asked = ? AND at < ?", string(asked), t.now.Add(-f.Retention()).UnixMilli()); err != nil {
			return err
		}
		if excess := size + t.bytes[asked] - f.Limit(); excess > 0 {
			if err := t.shrink(asked, excess); err != nil {
				return err
			}
		}
	}
	for endpoint, n := range t.d.waiting {
		f := plan.option(endpoint, endpoint)
		if f == nil {
			f = &serving.Feedback{}
		}
		gone, err := t.exec("DELETE FROM pending WHERE endpoint = ? AND at < ?", string(endpoint), t.now.Add(-f.Retention()).UnixMilli())
		if err != nil {
			return err
		}
		if excess := n - gone - maxPending; excess > 0 {
			more, err := t.exec("DELETE FROM pending WHERE endpoint = ?1 AND key IN (SELECT key FROM pending WHERE endpoint = ?1 ORDER BY at LIMIT ?2)", string(endpoint), excess)
			if err != nil {
				return err
			}
			gone += more
		}
		t.waiting[endpoint] -= gone
		t.count(endpoint, countUnmatched, uint64(gone)) //nolint:gosec // a number of rows
	}
	return t.tidyTotals()
}

// tidyTotals removes the sums of days that are long past. A version without joined predictions since
// then is removed as a whole.
func (t *tx) tidyTotals() error {
	newest := t.d.newestDays()
	before := t.now.Add(-keepSums).Unix() / 86400
	for key := range t.d.totals {
		if (key.day == day0 && newest[key.url] >= before) || (key.day != day0 && key.day >= before) {
			continue
		}
		if _, err := t.exec("DELETE FROM totals WHERE url = ? AND day = ?", string(key.url), key.day); err != nil {
			return err
		}
		t.removed = append(t.removed, key)
	}
	return nil
}

// newestDays returns the newest day with sums of each URL.
func (d *database) newestDays() map[serving.EndpointURL]int64 {
	newest := map[serving.EndpointURL]int64{}
	for key := range d.totals {
		newest[key.url] = max(newest[key.url], key.day)
	}
	return newest
}

// shrink removes the oldest predictions of an endpoint until excess bytes are gone.
func (t *tx) shrink(asked serving.EndpointURL, excess int64) error {
	for excess > 0 {
		before := t.bytes[asked]
		if err := t.remove("asked = ?1 AND key IN (SELECT key FROM predictions WHERE asked = ?1 ORDER BY at LIMIT 1000)", string(asked)); err != nil {
			return err
		}
		gone := before - t.bytes[asked]
		if gone == 0 {
			return nil
		}
		excess -= gone
	}
	return nil
}

// urls lists the endpoints with sums.
func (d *database) urls() []serving.EndpointURL {
	var all []serving.EndpointURL
	for key := range d.totals {
		if key.day == day0 {
			all = append(all, key.url)
		}
	}
	slices.Sort(all)
	return all
}
