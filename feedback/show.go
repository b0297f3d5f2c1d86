package feedback

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"clearmlserving/serving"
)

// Report is the quality of an endpoint on one instance.
type Report struct {
	Endpoint serving.EndpointURL `json:"endpoint"`
	Versions []VersionReport     `json:"versions"`
	// Kept is the number of predictions that are kept, Bytes their size, Waiting the number of truths
	// without one.
	Kept    int64 `json:"kept"`
	Bytes   int64 `json:"bytes"`
	Waiting int64 `json:"waiting"`
	// Outcomes count the feedback: joined, duplicate, unmatched, mismatch, elsewhere.
	Outcomes map[string]uint64 `json:"outcomes"`
	// Skipped counts the answers without a prediction that could be kept, by reason.
	Skipped map[string]uint64 `json:"skipped,omitempty"`
	Dropped uint64            `json:"dropped,omitempty"`
	Problem string            `json:"problem,omitempty"`
}

// VersionReport is the quality of one URL.
type VersionReport struct {
	URL      serving.EndpointURL `json:"url"`
	Endpoint string              `json:"endpoint"`
	Version  string              `json:"version"`
	All      Totals              `json:"totals"`
	Days     []DayReport         `json:"days"`
}

// DayReport is the quality of the predictions of one day, in UTC.
type DayReport struct {
	Day    string `json:"day"`
	Totals Totals `json:"totals"`
}

// Merge adds the report of another instance.
func (r *Report) Merge(other Report) {
	r.Kept += other.Kept
	r.Bytes += other.Bytes
	r.Waiting += other.Waiting
	r.Dropped += other.Dropped
	r.Outcomes, r.Skipped = merged(r.Outcomes, other.Outcomes), merged(r.Skipped, other.Skipped)
	if r.Problem == "" {
		r.Problem = other.Problem
	}
	for _, v := range other.Versions {
		i := slices.IndexFunc(r.Versions, func(own VersionReport) bool { return own.URL == v.URL })
		if i < 0 {
			r.Versions = append(r.Versions, v)
			continue
		}
		own := &r.Versions[i]
		own.All.Merge(v.All)
		for _, d := range v.Days {
			k := slices.IndexFunc(own.Days, func(before DayReport) bool { return before.Day == d.Day })
			if k < 0 {
				own.Days = append(own.Days, d)
			} else {
				own.Days[k].Totals.Merge(d.Totals)
			}
		}
		slices.SortFunc(own.Days, func(a, b DayReport) int { return bytes.Compare([]byte(a.Day), []byte(b.Day)) })
	}
}

func merged(a, b map[string]uint64) map[string]uint64 {
	sum := maps.Clone(a)
	for name, n := range b {
		if sum == nil {
			sum = map[string]uint64{}
		}
		sum[name] += n
	}
	return sum
}

// Joined is a prediction with what was true.
type Joined struct {
	Number     int64               `json:"number"` // of the join, in their order
	Key        string              `json:"key"`
	Time       time.Time           `json:"time"` // of the request
	Endpoint   serving.EndpointURL `json:"endpoint"`
	AnsweredBy serving.EndpointURL `json:"answered_by"`
	ModelID    string              `json:"model_id,omitempty"`
	Prediction []any               `json:"prediction"`
	Truth      []any               `json:"truth"`
}

const (
	pageLength = 1000    // joined predictions of one answer
	pageBytes  = 8 << 20 // from which on it ends
)

// errPageFull ends a page.
var errPageFull = errors.New("the page is full")

// Show describes the quality of an endpoint. With ?rows=N it returns joined predictions instead, those
// after number N, as lines of JSON.
func (s *Store) Show(endpoint serving.EndpointURL, query string) (status int, contentType string, body []byte) {
	refuse := func(status int, text string) (int, string, []byte) {
		return status, "application/json", serving.Detail(text)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return refuse(http.StatusBadRequest, "The query cannot be read: "+err.Error())
	}
	if after := values.Get("rows"); after != "" {
		n, err := strconv.ParseInt(after, 10, 64)
		if err != nil || n < 0 {
			return refuse(http.StatusBadRequest, "rows must be a number: that of the last row before")
		}
		text, err := s.joined(endpoint, n)
		if err != nil {
			return refuse(http.StatusServiceUnavailable, "Joined predictions cannot be read now: "+err.Error())
		}
		return http.StatusOK, "application/x-ndjson", text
	}
	text, err := json.Marshal(s.Report(endpoint))
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return http.StatusOK, "application/json", text
}

// Report returns the quality of an endpoint and of the URLs below it.
func (s *Store) Report(endpoint serving.EndpointURL) Report {
	r := Report{Endpoint: endpoint, Versions: []VersionReport{}, Outcomes: map[string]uint64{}}
	if problem := s.problem.Load(); problem != nil {
		r.Problem = *problem
	}
	t := s.table.Load()
	for url, n := range s.drops() {
		if about(endpoint, url, url) {
			r.Dropped += n
		}
	}
	d := s.db.Load()
	if d == nil {
		return r
	}
	d.state.RLock()
	defer d.state.RUnlock()
	for url, n := range d.kept {
		if about(endpoint, url, url) {
			r.Kept += n
			r.Bytes += d.bytes[url]
		}
	}
	for url, n := range d.waiting {
		if about(endpoint, url, url) {
			r.Waiting += n
		}
	}
	for key, n := range d.counts {
		if reason, skipped := cutSkipped(key.name); !about(endpoint, key.url, key.url) || key.name == countKept {
			continue
		} else if skipped {
			r.Skipped = merged(r.Skipped, map[string]uint64{reason: n})
		} else {
			r.Outcomes[key.name] += n
		}
	}
	for _, url := range d.urls() {
		if !about(endpoint, url, url) {
			continue
		}
		name := t.names.Of(url)
		v := VersionReport{URL: url, Endpoint: name.Endpoint, Version: name.Version, All: *d.totals[totalsKey{url, day0}].clone(), Days: []DayReport{}}
		var days []int64
		for key := range d.totals {
			if key.url == url && key.day != day0 {
				days = append(days, key.day)
			}
		}
		slices.Sort(days)
		for _, day := range days {
			v.Days = append(v.Days, DayReport{time.Unix(day*86400, 0).UTC().Format(time.DateOnly), *d.totals[totalsKey{url, day}].clone()})
		}
		r.Versions = append(r.Versions, v)
	}
	return r
}

// joined returns a page of joined predictions, oldest joins first.
func (s *Store) joined(endpoint serving.EndpointURL, after int64) ([]byte, error) {
	d := s.db.Load()
	if d == nil {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	const query = `SELECT joined, key, at, asked, answered, model, rows, truth FROM predictions
WHERE joined > ?1 AND (asked = ?2 OR answered = ?2 OR substr(asked, 1, length(?2) + 1) = ?2 || '/') ORDER BY joined LIMIT ?3`
	err := d.each(context.Background(), query, func(rows *sql.Rows) error {
		var j Joined
		var at int64
		var predicted, actual []byte
		if err := rows.Scan(&j.Number, &j.Key, &at, &j.Endpoint, &j.AnsweredBy, &j.ModelID, &predicted, &actual); err != nil {
			return err
		}
		j.Time = time.UnixMilli(at).UTC()
		var predictions []Prediction
		var truths []Truth
		if err := json.Unmarshal(predicted, &predictions); err != nil {
			return err
		}
		if err := json.Unmarshal(actual, &truths); err != nil {
			return err
		}
		for i := range predictions {
			j.Prediction = append(j.Prediction, valueOf(predictions[i].Class, predictions[i].Number))
			j.Truth = append(j.Truth, valueOf(truths[i].Class, truths[i].Number))
		}
		if err := encoder.Encode(j); err != nil {
			return err
		}
		if out.Len() >= pageBytes {
			return errPageFull
		}
		return nil
	}, after, string(endpoint), pageLength)
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, fmt.Errorf("read joined predictions: %w", err)
	}
	return out.Bytes(), nil
}

func valueOf(class string, n *float64) any {
	if n != nil {
		return *n
	}
	return class
}
