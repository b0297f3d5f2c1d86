package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"clearmlserving/serving"
)

// printNative shows which models are computed in Go, and how that was proven.
func (a *app) printNative(f fleet) {
	var rows [][]string
	for _, l := range f.instances {
		where := f.where(l)
		for _, e := range l.Endpoints {
			n := e.Model.Native
			if n == nil {
				continue
			}
			by := cmp.Or(n.By, "Go")
			if !n.On {
				by = "Python"
			}
			compared, differ, bits := n.Compared()
			rows = append(rows, []string{
				"/" + string(e.URL) + where, by, n.Model, strconv.Itoa(compared), strconv.Itoa(differ), tolerance(n, bits),
				strconv.FormatUint(n.Native, 10), strconv.FormatUint(n.Fallback, 10), nativeNote(n),
			})
		}
	}
	a.print.section([]string{"ACCELERATED", "BY", "MODEL", "COMPARED", "DIFFER", "TOLERANCE", "IN GO", "IN PYTHON", "NOTE"}, rows)
}

// tolerance says what counts as equal.
func tolerance(n *serving.NativeReport, bits int) string {
	switch {
	case n.Model == "":
		return ""
	case n.Tolerance > 0:
		return fmt.Sprintf("%g, %d other bits", n.Tolerance, bits)
	}
	return "none"
}

// nativeNote says why a model stays in Python, or what is left to it.
func nativeNote(n *serving.NativeReport) string {
	if n.Reason != "" {
		return serving.Shorten(n.Reason, 200)
	}
	if len(n.Python) > 0 {
		return "Python answers " + strings.Join(n.Python, ", ")
	}
	return ""
}
