package serving

import "strings"

// Name is what metrics and tables call an endpoint.
type Name struct{ Endpoint, Version string }

// Names are the names of planned endpoints.
type Names map[EndpointURL]Name

// Names returns the names of the planned endpoints.
func (p Plan) Names() Names {
	names := make(Names, len(p.Endpoints))
	for url, e := range p.Endpoints {
		names[url] = Name{Endpoint: string(url)}
		if e.Version != "" {
			names[url] = Name{string(CleanURL(e.ServingURL)), e.Version}
		}
	}
	return names
}

// Of returns the name of a URL, also of one that is no longer planned.
func (n Names) Of(url EndpointURL) Name {
	if name, ok := n[url]; ok {
		return name
	}
	return NameOf(url)
}

// NameOf is the name of a URL of unknown origin: a number at its end is the version.
func NameOf(url EndpointURL) Name {
	i := strings.LastIndexByte(string(url), '/')
	if last := string(url)[i+1:]; i > 0 && last != "" && strings.Trim(last, "0123456789") == "" {
		return Name{string(url)[:i], last}
	}
	return Name{Endpoint: string(url)}
}
