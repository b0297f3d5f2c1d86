package inference

import (
	"strings"

	"clearmlserving/serving"
)

// Shown hides credentials of this service from user code, in a field of a client's request: keys,
// and session cookies of the embedded server's pages, which browsers send to every port of the same
// host. A client's own Authorization is shown while the service requires no keys. false hides the
// field.
func (s *Service) Shown(name, value string) (string, bool) {
	switch {
	case serving.HoldsAccessKey(value):
		return "", false
	case strings.EqualFold(name, "Authorization"):
		return value, !s.KeysRequired()
	case strings.EqualFold(name, "Proxy-Authorization"):
		return "", false
	case strings.EqualFold(name, "Cookie"):
		return foreignCookies(value)
	}
	return value, true
}

// ownCookies is the prefix of the names of the embedded server's cookies.
const ownCookies = "clearml_"

func foreignCookies(value string) (string, bool) {
	if !strings.Contains(value, ownCookies) {
		return value, true
	}
	var kept []string
	for pair := range strings.SplitSeq(value, ";") {
		if pair = strings.TrimSpace(pair); !strings.HasPrefix(pair, ownCookies) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "; "), len(kept) > 0
}
