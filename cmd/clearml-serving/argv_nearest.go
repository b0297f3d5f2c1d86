package main

import "github.com/spf13/pflag"

// nearest is the flag of the command that a mistyped name probably meant, or "".
func (r *reader) nearest(name string) string {
	best, distance := "", 3
	look := func(flag *pflag.Flag) {
		if d := editDistance(name, flag.Name, distance); d < distance && !flag.Hidden {
			best, distance = flag.Name, d
		}
	}
	r.command.LocalFlags().VisitAll(look)
	r.command.InheritedFlags().VisitAll(look)
	return best
}

// editDistance counts the edits from a to b; limit or more means "far".
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
