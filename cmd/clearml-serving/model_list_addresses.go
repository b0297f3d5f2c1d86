package main

import (
	"strconv"
	"time"

	"clearmlserving/serving"
)

// printEngines shows the addresses of engines that run beside the instances, and how they do.
func (a *app) printEngines(f fleet) {
	var rows [][]string
	for _, l := range f.instances {
		where := f.where(l)
		for _, e := range l.Endpoints {
			for _, address := range e.Model.Addresses {
				rows = append(rows, []string{
					"/" + string(e.URL) + where, address.Address, string(address.State), address.Since.UTC().Format(time.DateTime),
					strconv.FormatInt(address.Outstanding, 10), strconv.FormatUint(address.Answered, 10), strconv.FormatUint(address.Failed, 10),
					serving.Shorten(firstOf(address.Reason, address.LastError), 200),
				})
			}
		}
	}
	a.print.section([]string{"ENGINE OF", "ADDRESS", "STATE", "SINCE", "OUTSTANDING", "ANSWERED", "FAILED", "LAST ERROR"}, rows)
}
