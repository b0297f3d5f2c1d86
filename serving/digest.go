package serving

// digestLength is enough hex digits to distinguish the states of one service.
const digestLength = 12

// Digests returns, for each configured URL (endpoints, monitorings, canaries, options, logged
// metrics, drift), a marker that changes with the configuration of that URL, including the hashes of its
// artifacts. Unlike StateHash it does not change with other URLs.
func (s Service) Digests(artifactHashes map[string]string) map[EndpointURL]string {
	parts := map[EndpointURL]Service{}
	put(parts, s.Endpoints, func(p *Service) *map[string]Endpoint { return &p.Endpoints })
	put(parts, s.Monitoring, func(p *Service) *map[string]Monitoring { return &p.Monitoring })
	put(parts, s.Canaries, func(p *Service) *map[string]Canary { return &p.Canaries })
	put(parts, s.Metrics, func(p *Service) *map[string]MetricLogging { return &p.Metrics })
	put(parts, s.Drift, func(p *Service) *map[string]DriftSettings { return &p.Drift })
	put(parts, s.Options, func(p *Service) *map[string]EndpointOptions { return &p.Options })
	digests := make(map[EndpointURL]string, len(parts))
	for url, part := range parts {
		digests[url] = part.StateHash(artifactHashes)[:digestLength]
	}
	return digests
}

// put adds each record to the part of its URL.
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
