package serving

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// CanaryTable is a canary prepared for routing: the share of each target.
type CanaryTable struct {
	URL     EndpointURL
	Targets []EndpointURL
	Shares  []float64 // same length as Targets, sums to 1
	Problem string    // why targets are missing or, without a target, why it cannot answer
}

// resolveCanary selects the targets among the existing endpoints. usable has each of them; it is
// false for a refused version, which a prefix does not select.
//
// A fixed list pairs weights and endpoints by position. Endpoints that do not exist are omitted
// with their weights, and so are other canaries, which prevents cycles. A prefix selects every
// endpoint whose URL starts with it, newest version first, so the first weight belongs to the
// highest version; surplus weights or endpoints are dropped.
func resolveCanary(c Canary, usable, canaries map[EndpointURL]bool) CanaryTable {
	table := CanaryTable{URL: CleanURL(c.Endpoint)}
	if err := c.Validate(); err != nil {
		table.Problem = err.Error()
		return table
	}
	var targets []EndpointURL
	var weights []float64
	var notes []string
	if c.LoadEndpointPrefix != "" {
		for url, ok := range usable {
			if ok && strings.HasPrefix(string(url), strings.TrimLeft(c.LoadEndpointPrefix, "/")) {
				targets = append(targets, url)
			}
		}
		if len(targets) == 0 {
			table.Problem = fmt.Sprintf("no endpoint starts with %q", c.LoadEndpointPrefix)
			return table
		}
		NewestFirst(targets)
		n := min(len(targets), len(c.Weights))
		targets, weights = targets[:n], c.Weights[:n]
	} else {
		for i, name := range c.LoadEndpoints {
			url := CleanURL(name)
			_, exists := usable[url]
			if !exists && canaries[url] {
				notes = append(notes, fmt.Sprintf("%q is a canary: a canary chooses among endpoints only", name))
				continue
			}
			if !exists {
				notes = append(notes, fmt.Sprintf("endpoint %q does not exist", name))
				continue
			}
			targets, weights = append(targets, url), append(weights, c.Weights[i])
		}
	}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	table.Problem = strings.Join(notes, "; ")
	if sum <= 0 {
		if len(targets) > 0 {
			table.Problem = strings.TrimPrefix(table.Problem+"; the weights of the endpoints that exist sum to 0", "; ")
		}
		return table
	}
	for i, w := range weights {
		if w == 0 {
			continue // a weight of 0 gets no traffic
		}
		table.Targets = append(table.Targets, targets[i])
		table.Shares = append(table.Shares, w/sum)
	}
	return table
}

// versionOrder sorts urls with their last part as a number: the part is padded
// with zeros, as the original does, so that "m/10" comes after "m/9".
func versionOrder(url EndpointURL) string {
	base, last, found := cutLast(string(url))
	if !found {
		return string(url)
	}
	return base + "/" + strings.Repeat("0", max(0, 9-len(last))) + last
}

func cutLast(url string) (base, last string, found bool) {
	i := strings.LastIndexByte(url, '/')
	if i < 0 {
		return url, "", false
	}
	return url[:i], url[i+1:], true
}

// NewestFirst sorts endpoints as the prefix of a canary selects them.
func NewestFirst(urls []EndpointURL) []EndpointURL {
	slices.SortFunc(urls, func(a, b EndpointURL) int { return cmp.Compare(versionOrder(b), versionOrder(a)) })
	return urls
}
