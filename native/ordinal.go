package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ordinalJSON describes a stage of kind "ordinal": columns of a slot in another order, the first of them as positions in
// tables. A value that is not in its table becomes NaN, as NaN does.
type ordinalJSON struct {
	In      int     `json:"in"`
	Columns []int   `json:"columns"` // of the slot
	Tables  []Array `json:"tables"`  // f64, in ascending order, for the first columns
}

type ordinal struct {
	ordinalJSON

	inputs int
	tables [][]float64
}

func newOrdinal(b *builder, raw json.RawMessage) (stage, error) {
	o := &ordinal{}
	if err := json.Unmarshal(raw, &o.ordinalJSON); err != nil {
		return nil, err
	}
	var err error
	if o.inputs, err = b.in(o.In); err != nil {
		return nil, err
	}
	if len(o.Tables) > len(o.Columns) {
		return nil, fmt.Errorf("%d tables for %d columns", len(o.Tables), len(o.Columns))
	}
	for _, column := range o.Columns {
		if column < 0 || column >= o.inputs {
			return nil, fmt.Errorf("there is no column %d", column)
		}
	}
	for _, a := range o.Tables {
		table, err := elements[float64](b.file, "table", a)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(table, math.IsNaN) || !slices.IsSorted(table) {
			return nil, errors.New("a table is not in ascending order")
		}
		o.tables = append(o.tables, table)
	}
	return o, nil
}

func (o *ordinal) width() int { return len(o.Columns) }

func (o *ordinal) run(r *run, out []float64) error {
	in := r.slots[o.In]
	for row := range r.rows {
		from, to := in[row*o.inputs:(row+1)*o.inputs], out[row*len(o.Columns):]
		for i, column := range o.Columns {
			x := from[column]
			if i >= len(o.tables) {
				to[i] = x
				continue
			}
			if math.IsInf(x, 0) {
				return &InputError{Row: row, Column: column, Reason: "infinity, which is no category"}
			}
			to[i] = math.NaN()
			if position, ok := slices.BinarySearch(o.tables[i], x); ok {
				to[i] = float64(position)
			}
		}
	}
	return nil
}
