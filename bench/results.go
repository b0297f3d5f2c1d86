package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// fullRounds is how many rounds a result needs to be published.
const fullRounds = 5

// keep merges rows into the results: a row replaces the one of the same name,
// unless it had fewer rounds than that.
func (f files) keep(rows []row) error {
	if f.results == "" {
		return nil
	}
	old, err := readResults(f.results)
	if err != nil {
		return err
	}
	merged, taken := merge(old, rows, f.force)
	if len(taken) < len(rows) {
		say("%d rows are not kept: there are such of more rounds (FORCE=1 replaces them)", len(rows)-len(taken))
	}
	text, err := json.MarshalIndent(merged, "", " ")
	if err != nil {
		return err
	}
	if err := replace(f.results, append(text, '\n')); err != nil {
		return err
	}
	if f.history == "" {
		return nil
	}
	return appendHistory(f.history, taken)
}

// merge is the new list, and those of the rows that are in it. A case that was
// measured again loses its rows beside others whom it was not measured with only
// when it is removed from the tables of this program.
func merge(old, rows []row, force bool) (merged, taken []row) {
	merged = slices.Clone(old)
	for _, r := range rows {
		i := slices.IndexFunc(merged, func(o row) bool {
			return o.key() == r.key() && o.Against == r.Against && o.Metric == r.Metric
		})
		switch {
		case i < 0:
			merged = append(merged, r)
		case len(merged[i].Rounds) > len(r.Rounds) && !force:
			continue
		default:
			merged[i] = r
		}
		taken = append(taken, r)
	}
	return merged, taken
}

func readResults(file string) ([]row, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return slices.DeleteFunc(rows, func(r row) bool { return r.Name == "" }), nil // of an older form
}

// replace writes a file whole or not at all.
func replace(file string, text []byte) error {
	if err := os.WriteFile(file+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// appendHistory keeps what a later run is compared with: a line for each ratio.
func appendHistory(file string, rows []row) (err error) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := json.NewEncoder(f)
	for _, r := range rows {
		if r.Metric == "p50 us" && r.Goal == "" {
			continue // nobody looks for it later
		}
		low, high := r.spread()
		err := out.Encode(map[string]any{
			"date": time.Now().UTC().Format(time.RFC3339), "version": r.Versions["ours"], "machine": r.Machine,
			"case": r.Case, "against": r.Against, "metric": r.Metric, "ours": r.Ours, "ratio": r.Ratio,
			"spread": []float64{math.Round(100*low) / 100, math.Round(100*high) / 100}, "doubtful": r.Doubtful,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// render makes the page and the charts from all results there are.
func (f files) render() error {
	if f.page == "" || f.results == "" {
		return nil
	}
	rows, err := readResults(f.results)
	if err != nil {
		return err
	}
	charts := chartsOf(rows)
	text, err := pageOf(rows, charts)
	if err != nil {
		return err
	}
	if err := replace(f.page, text); err != nil || f.images == "" {
		return err
	}
	for _, c := range charts {
		picture, err := c.draw()
		if err != nil {
			return err
		}
		if err := replace(f.images+"/"+c.File, picture); err != nil {
			return err
		}
	}
	return nil
}
