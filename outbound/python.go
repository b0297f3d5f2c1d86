package outbound

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// PythonProxy is the proxy that Python's HTTP library, and so the ClearML SDK, uses for a URL, ""
// for none. Unlike Go it also uses a proxy for the local machine, unless NO_PROXY names it.
func PythonProxy(env func(string) (string, bool), u *url.URL) string {
	proxy := cmp.Or(proxyVariable(env, u.Scheme+"_proxy"), proxyVariable(env, "all_proxy"))
	if proxy == "" || u.Hostname() == "" || pythonBypasses(noProxy(env), u) {
		return ""
	}
	return proxy
}

// noProxy is that library's value of NO_PROXY: lower case is used if it is not empty.
func noProxy(env func(string) (string, bool)) string {
	lower, _ := env("no_proxy")
	upper, _ := env("NO_PROXY")
	return cmp.Or(lower, upper)
}

func pythonBypasses(list string, u *url.URL) bool {
	host, withPort := strings.ToLower(u.Hostname()), strings.ToLower(u.Hostname())
	if u.Port() != "" {
		withPort += ":" + u.Port()
	}
	ip, err := netip.ParseAddr(host)
	if list == "*" {
		return true
	}
	for name := range strings.SplitSeq(strings.ToLower(list), ",") {
		name = strings.TrimSpace(name)
		if block, blockErr := netip.ParsePrefix(name); blockErr == nil && err == nil && ip.Is4() && block.Contains(ip) {
			return true
		}
		name = strings.TrimLeft(name, ".")
		if name == "" {
			continue
		}
		if host == name || withPort == name || strings.HasSuffix(host, "."+name) || strings.HasSuffix(withPort, "."+name) {
			return true
		}
	}
	return false
}

// Unproxied extends NO_PROXY so that Python programs reach addresses of this machine without a
// proxy. It returns the variables to set, none if nothing is missing.
func Unproxied(env func(string) (string, bool), addresses ...string) (names []string, value string) {
	value = noProxy(env)
	missing := false
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil || !loopback(u.Hostname()) || PythonProxy(env, u) == "" || pythonBypasses(value, u) {
			continue
		}
		missing = true
		value = strings.TrimLeft(strings.TrimRight(value, ", ")+","+u.Hostname(), ",")
	}
	if !missing {
		return nil, ""
	}
	names = []string{"NO_PROXY"}
	if lower, _ := env("no_proxy"); lower != "" {
		names = append(names, "no_proxy")
	}
	return slices.Clip(names), value
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || (err == nil && ip.IsLoopback())
}
