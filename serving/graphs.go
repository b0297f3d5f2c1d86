package serving

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// graphs finds what the endpoints of a service call: graphs their steps, canaries their targets.
type graphs struct {
	s     Service
	read  map[EndpointURL]*Graph // nil: no graph
	sums  map[EndpointURL]int    // of calls
	depth map[EndpointURL]int
}

func graphsOf(s Service) *graphs {
	return &graphs{s, map[EndpointURL]*Graph{}, map[EndpointURL]int{}, map[EndpointURL]int{}}
}

// graph is the graph of an endpoint, nil if it is none, or cannot be read.
func (g *graphs) graph(url EndpointURL) *Graph {
	if known, ok := g.read[url]; ok {
		return known
	}
	e, _ := LookUp(g.s.Endpoints, string(url))
	graph, err := GraphOf(e.EngineType, e.AuxiliaryCfg)
	if err != nil {
		graph = nil
	}
	g.read[url] = graph
	return graph
}

// below are the urls that a url calls, or chooses among.
func (g *graphs) below(url EndpointURL) []EndpointURL {
	if c, ok := LookUp(g.s.Canaries, string(url)); ok { // it hides an endpoint of its url
		return g.targets(c)
	}
	if graph := g.graph(url); graph != nil {
		return graph.Endpoints()
	}
	return nil
}

// targets are the static endpoints that a canary may choose; others are no graphs.
func (g *graphs) targets(c Canary) []EndpointURL {
	var urls []EndpointURL
	for _, name := range c.LoadEndpoints {
		urls = append(urls, CleanURL(name))
	}
	if c.LoadEndpointPrefix != "" {
		for key := range g.s.Endpoints {
			if strings.HasPrefix(string(CleanURL(key)), strings.TrimLeft(c.LoadEndpointPrefix, "/")) {
				urls = append(urls, CleanURL(key))
			}
		}
	}
	slices.Sort(urls)
	return urls
}

// circle is a path of calls from a url back to itself, nil if there is none.
func (g *graphs) circle(from EndpointURL) []EndpointURL {
	seen := map[EndpointURL]bool{}
	var walk func(url EndpointURL, path []EndpointURL) []EndpointURL
	walk = func(url EndpointURL, path []EndpointURL) []EndpointURL {
		path = append(path, url)
		for _, next := range g.below(url) {
			if next == from {
				return append(path, next)
			}
			if seen[next] {
				continue
			}
			seen[next] = true
			if found := walk(next, path); found != nil {
				return found
			}
		}
		return nil
	}
	return walk(from, nil)
}

// calls is the most calls that a request to the url makes, itself included. There must be no circle.
func (g *graphs) calls(url EndpointURL) int {
	if n, ok := g.sums[url]; ok {
		return n
	}
	g.sums[url] = 1 // a circle elsewhere ends here
	n := 1
	if c, ok := LookUp(g.s.Canaries, string(url)); ok {
		for _, target := range g.targets(c) {
			n = max(n, g.calls(target))
		}
	} else if graph := g.graph(url); graph != nil {
		n = min(1+graph.calls(g.calls), maxGraphCalls+1)
	}
	g.sums[url] = n
	return n
}

// nested is how deep the calls of a request to the url are nested. There must be no circle.
func (g *graphs) nested(url EndpointURL) int {
	if n, ok := g.depth[url]; ok {
		return n
	}
	g.depth[url] = 0
	n, own := 0, 1
	if _, canary := LookUp(g.s.Canaries, string(url)); canary {
		own = 0
	}
	for _, next := range g.below(url) {
		n = max(n, own+g.nested(next))
	}
	g.depth[url] = n
	return n
}

// checkGraphs refuses what a record of a url, which has been stored in s, makes of the graphs of the service:
// calls in a circle, too many, or nested too deep.
func (s Service) checkGraphs(changed EndpointURL) error {
	none := true
	for _, e := range s.Endpoints {
		none = none && e.EngineType != EngineGraph
	}
	if none {
		return nil
	}
	if e, ok := LookUp(s.Endpoints, string(changed)); ok {
		if err := s.checkGraph(e); err != nil {
			return err
		}
	}
	g := graphsOf(s)
	if path := g.circle(changed); path != nil {
		names := make([]string, len(path))
		for i, url := range path {
			names[i] = string(url)
		}
		return fmt.Errorf("'%s' would call itself: %s", changed, strings.Join(names, " -> "))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Endpoints)) {
		url := CleanURL(key)
		if url != changed && !g.reaches(url, changed) {
			continue
		}
		if n := g.nested(url); n > MaxCallDepth {
			return fmt.Errorf("the calls of '%s' would be nested %d deep, at most %d", url, n, MaxCallDepth)
		}
		if n := g.calls(url); n > maxGraphCalls {
			return fmt.Errorf("a request to '%s' would make more than %d calls", url, maxGraphCalls)
		}
	}
	return nil
}

// reaches reports whether requests to from may reach to.
func (g *graphs) reaches(from, to EndpointURL) bool {
	if g.graph(from) == nil {
		return false
	}
	seen := map[EndpointURL]bool{}
	var walk func(url EndpointURL) bool
	walk = func(url EndpointURL) bool {
		return slices.ContainsFunc(g.below(url), func(next EndpointURL) bool {
			if next == to {
				return true
			}
			if seen[next] {
				return false
			}
			seen[next] = true
			return walk(next)
		})
	}
	return walk(from)
}

// checkGraph refuses a graph that calls itself, or what does not exist.
func (s Service) checkGraph(e Endpoint) error {
	graph, err := GraphOf(e.EngineType, e.AuxiliaryCfg)
	if err != nil {
		return err
	}
	if graph == nil {
		return nil
	}
	for _, url := range graph.Endpoints() {
		if url == e.URL() {
			return fmt.Errorf("graph '%s' calls itself", url)
		}
		if !s.mayServe(url) {
			return fmt.Errorf("graph '%s' calls the endpoint '%s', which does not exist%s: add it first", e.URL(), url, didYouMean(string(url), s.urls()))
		}
	}
	return nil
}

// mayServe reports whether the url is served, or would be by a monitoring when it has made the version.
func (s Service) mayServe(url EndpointURL) bool {
	base, version, _ := cutLast(string(url))
	_, monitored := existing(s.Monitoring, base)
	return s.Serves(url) || monitored && version != "" && strings.Trim(version, "0123456789") == ""
}

// urls are those of the endpoints and canaries.
func (s Service) urls() []string {
	var urls []string
	for key := range s.Endpoints {
		urls = append(urls, string(CleanURL(key)))
	}
	for key := range s.MonitoringEndpoints {
		urls = append(urls, string(CleanURL(key)))
	}
	for key := range s.Canaries {
		urls = append(urls, string(CleanURL(key)))
	}
	slices.Sort(urls)
	return urls
}

// GraphsThatCall are the graphs with a step that calls the url, sorted.
func (s Service) GraphsThatCall(url EndpointURL) []EndpointURL {
	g := graphsOf(s)
	var urls []EndpointURL
	for key := range s.Endpoints {
		if graph := g.graph(CleanURL(key)); graph != nil && slices.Contains(graph.Endpoints(), url) {
			urls = append(urls, CleanURL(key))
		}
	}
	slices.Sort(urls)
	return urls
}
