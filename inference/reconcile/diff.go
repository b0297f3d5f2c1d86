package reconcile

import (
	"maps"
	"slices"

	"clearmlserving/serving"
)

// difference is what must happen so that what runs becomes what is wanted.
type difference struct{ added, changed, gone []serving.EndpointURL }

// diff compares the keys of what runs with what is wanted. Equal keys mean that
// nothing has to be done for that endpoint.
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
