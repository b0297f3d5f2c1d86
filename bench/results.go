package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"clearmlserving/atomicfile"
)

// fullRounds is the number of rounds that a published result needs.
const fullRounds = 5

// keep merges rows into the results: a row replaces the one of the same name, unless it has fewer
// rounds than that.
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
		say("%d rows are not kept: the existing rows have more rounds (FORCE=1 replaces them)", len(rows)-len(taken))
	}
	text, err := oneALine(merged)
	if err != nil {
		return err
	}
	return atomicfile.Write(f.results, text, 0o644)
}

// oneALine is a JSON list with one row per line, so that a diff shows the changed rows.
func oneALine(rows []row) ([]byte, error) {
	text := []byte("[")
	for i, r := range rows {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(text, '\n'), line...)
	}
	return append(text, "\n]\n"...), nil
}

// merge returns the new list, and the rows that are in it. A case that was measured again keeps its
// rows with other servers until it is removed from the tables of this program.
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
	return slices.DeleteFunc(rows, func(r row) bool { return r.Name == "" }), nil // of an older format
}

// render generates the page and the charts from all results.
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
	if err := atomicfile.Write(f.page, text, 0o644); err != nil || f.images == "" {
		return err
	}
	for _, c := range charts {
		picture, err := c.draw()
		if err != nil {
			return err
		}
		if err := atomicfile.Write(f.images+"/"+c.File, picture, 0o644); err != nil {
			return err
		}
	}
	return nil
}
