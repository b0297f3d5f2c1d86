package main

import (
	"fmt"
	"strconv"
)

// printBatching shows how the instances execute requests together, and what their
// last decisions were.
func (a *app) printBatching(f fleet) {
	var rows [][]string
	for _, l := range f.instances {
		where := f.where(l)
		for _, e := range l.Endpoints {
			b := e.Model.Batching
			if b == nil {
				continue
			}
			last, cost := "", ""
			if b.Batches > 0 {
				last = fmt.Sprintf("%d of %d", b.LastRows, b.LastRequests)
			}
			if b.PerRowUS+b.PerBatchUS > 0 {
				cost = fmt.Sprintf("%.0f us + %.1f us a row", b.PerBatchUS, b.PerRowUS)
			}
			rows = append(rows, []string{
				"/" + string(e.URL) + where, strconv.FormatUint(b.Batches, 10), last, strconv.FormatFloat(b.MeanRows, 'f', 1, 64), cost,
				strconv.Itoa(b.Limit), b.LimitedBy,
			})
		}
	}
	a.print.section([]string{"BATCHING OF", "BATCHES", "LAST ROWS OF REQUESTS", "MEAN ROWS", "TAKES", "LIMIT", "SET BY"}, rows)
}
