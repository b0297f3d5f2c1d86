package serving

// digestLength is enough hex digits to tell the states of one service apart.
const digestLength = 12

// Digests gives, for each url that users configure (endpoints, monitorings,
// canaries, options, logged metrics), a marker that moves with what is configured
// for it, the hashes of the artifacts that it refers to included. Unlike
// StateHash it stays where it is while others change other urls.
func (s Service) Digests(artifactHashes map[string]string) map[EndpointURL]string {
	parts := map[EndpointURL]Service{}
	put(parts, s.Endpoints, func(p *Service) *map[string]Endpoint { return &p.Endpoints })
	put(parts, s.Monitoring, func(p *Service) *map[string]Monitoring { return &p.Monitoring })
	put(parts, s.Canaries, func(p *Service) *map[string]Canary { return &p.Canaries })
	put(parts, s.Metrics, func(p *Service) *map[string]MetricLogging { return &p.Metrics })
	put(parts, s.Options, func(p *Service) *map[string]EndpointOptions { return &p.Options })
	digests := make(map[EndpointURL]string, len(parts))
	for url, part := range parts {
		digests[url] = part.StateHash(artifactHashes)[:digestLength]
	}
	return digests
}

// put hands each record to the part of its url.
func put[T any](parts map[EndpointURL]Service, records map[string]T, in func(*Service) *map[string]T) {
	for key, record := range records {
		url := CleanURL(key)
		part := parts[url]
		own := in(&part)
		if *own == nil {
			*own = map[string]T{}
		}
		(*own)[key] = record
		parts[url] = part
	}
}
