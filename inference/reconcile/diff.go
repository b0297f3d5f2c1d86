package reconcile

import (
	"maps"
	"slices"

	"clearmlserving/serving"
)

// difference is the set of changes from the running to the wanted endpoints.
type difference struct{ added, changed, gone []serving.EndpointURL }

// diff compares the keys of running and wanted endpoints. Equal keys need no change.
func diff(current map[serving.EndpointURL]string, wanted map[serving.EndpointURL]want) difference {
	var d difference
	for _, url := range slices.Sorted(maps.Keys(wanted)) {
		key, runs := current[url]
		switch {
		case !runs:
			d.added = append(d.added, url)
		case key != wanted[url].key:
			d.changed = append(d.changed, url)
		}
	}
	for _, url := range slices.Sorted(maps.Keys(current)) {
		if _, stays := wanted[url]; !stays {
			d.gone = append(d.gone, url)
		}
	}
	return d
}
