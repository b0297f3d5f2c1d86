package main

import (
	"github.com/spf13/pflag"

	"clearmlserving/serving"
)

// nearest is the flag of the command that a mistyped name probably meant, or "".
func (r *reader) nearest(name string) string {
	best, distance := "", 3
	look := func(flag *pflag.Flag) {
		if d := serving.Edits(name, flag.Name, distance); d < distance && !flag.Hidden {
			best, distance = flag.Name, d
		}
	}
	r.command.LocalFlags().VisitAll(look)
	r.command.InheritedFlags().VisitAll(look)
	return best
}
