package main

import (
	"fmt"

	"clearmlserving/drift"
	"clearmlserving/drift/table"
	"clearmlserving/serving"
)

// readReference summarizes a file of rows, and says what is not watched.
func (a *app) readReference(file, timeColumn string) (text []byte, r *drift.Reference, err error) {
	r, notes, err := table.Reference(file, timeColumn)
	if err != nil {
		return nil, nil, err
	}
	for _, note := range notes {
		a.print.notice("Notice: %s", note)
	}
	return a.encodeReference(r)
}

// encodeReference says what a reference can tell, and writes it.
func (a *app) encodeReference(r *drift.Reference) ([]byte, *drift.Reference, error) {
	for _, name := range r.Names() {
		v := r.Variables[name]
		least := drift.NewNull(v, len(r.Variables), drift.DefaultSettings().MinPSI).MinPSI()
		switch {
		case v.Swing > 0 && v.Swing >= least:
			a.print.notice("Notice: variable '%s' swings by PSI %.2g over the day: smaller drift is not reported", name, v.Swing)
		case least > 2*drift.DefaultSettings().MinPSI:
			a.print.notice("Notice: variable '%s': with %d rows, drift below PSI %.2g cannot be told from chance", name, v.Rows(), least)
		}
	}
	text, err := r.Encode()
	if err != nil {
		return nil, nil, err
	}
	if len(text) > serving.MaxReference {
		return nil, nil, fmt.Errorf("the summary has %d bytes, at most %d are stored: use fewer columns", len(text), serving.MaxReference)
	}
	a.print.line("Reference of %d variables: %s", len(r.Variables), joinMost(r.Names(), 10))
	return text, r, nil
}
