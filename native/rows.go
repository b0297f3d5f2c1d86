package native

import (
	"errors"
	"fmt"
)

// ProofRows are rows of a proof, in the form of slot 0.
type ProofRows struct {
	Name   string // their kind
	Count  int
	Values []float64
}

// ProofRows reads the rows that the library has answered, at most limit of each kind.
func (m *Model) ProofRows(path string, limit int) (rows []ProofRows, err error) {
	f, p, release, err := m.proof(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	for _, c := range p.Cases {
		values, err := elements[float64](f, "rows", c.Rows)
		if err != nil {
			return nil, err
		}
		if c.Count < 0 || len(values) != c.Count*len(m.Columns) {
			return nil, fmt.Errorf("case %s: %d values for %d rows", c.Name, len(values), c.Count)
		}
		n := min(c.Count, limit)
		rows = append(rows, ProofRows{c.Name, n, append([]float64(nil), values[:n*len(m.Columns)]...)})
	}
	return rows, nil
}
