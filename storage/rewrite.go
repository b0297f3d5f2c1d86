package storage

import "strings"

// Rewrite replaces the prefix From of URLs by To, for a server that has moved, or that has another
// name inside a network.
type Rewrite struct {
	From, To string
	// Slashes replaces backslashes in the rest of the URL by slashes.
	Slashes bool
}

// Rewritten returns the URL by the first matching rule, or unchanged.
func Rewritten(rules []Rewrite, url string) string {
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
