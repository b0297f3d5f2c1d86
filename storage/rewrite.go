package storage

import "strings"

// Rewrite says that files whose URL begins with From are reached where To begins
// instead: a server that moved, or that has another name inside a network.
type Rewrite struct {
	From, To string
	// Slashes turns the backslashes of what follows into slashes.
	Slashes bool
}

// apply gives the URL by the first rule that fits, or as it is.
func apply(rules []Rewrite, url string) string {
	for _, rule := range rules {
		if rest, ok := strings.CutPrefix(url, rule.From); ok {
			if rule.Slashes {
				rest = strings.ReplaceAll(rest, `\`, "/")
			}
			return rule.To + rest
		}
	}
	return url
}
