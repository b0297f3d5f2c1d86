package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"clearmlserving/controlplane/store"
)

// servingCalls lists the calls of the serving service: serving instances tell of their
// endpoints, one container id for each endpoint of each instance, and pages list them.
func (s *Server) servingCalls() []callEntry {
	return []callEntry{
		{"serving.register_container", mayWrite, typed(s.registerContainer)},
		{"serving.unregister_container", mayWrite, typed(s.unregisterContainer)},
		{"serving.container_status_report", mayWrite, typed(s.reportContainer)},
		{"serving.get_endpoints", mayRead, typed(s.servingEndpoints)},
		{"serving.get_endpoint_details", mayRead, typed(s.servingEndpoint)},
		{"serving.get_loading_instances", mayRead, typed(s.loadingInstances)},
		{"serving.get_endpoint_metrics_history", mayRead, typed(s.servingHistory)}, // servinghistory.go
	}
}

// containerLife is how long an instance is listed after its last sign of life, unless it
// asks for another time.
const containerLife = 10 * time.Minute

// containerShapes are the fields that describe a container.
var containerShapes = map[string]shape{
	"endpoint_name": aText, "endpoint_url": aText, "model_name": aText, "model_source": aText, "model_version": aText,
	"preprocess_artifact": aText, "input_type": aText, "tags": tags, "system_tags": tags, "timeout": aNumber,
	"uptime_sec": aNumber, "requests_num": aNumber, "requests_min": aNumber, "latency_ms": aNumber, "machine_stats": anObject,
}

// takeContainer reads what an instance tells of one of its endpoints.
func takeContainer(req Fields) (id string, fields Fields, err error) {
	if id = asText(req["container_id"]); id == "" {
		return "", nil, missing("container_id")
	}
	if fields, err = take(req, containerShapes); err != nil {
		return "", nil, err
	}
	for _, key := range []string{"input_size", "reference"} {
		if req[key] != nil {
			fields[key] = req[key]
		}
	}
	return id, fields, nil
}

// registerContainer lists an endpoint of an instance before its first report.
func (s *Server) registerContainer(ctx context.Context, _ *Call, req Fields) (none, error) {
	id, fields, err := takeContainer(req)
	if err != nil {
		return none{}, err
	}
	if fields["endpoint_name"] == nil || fields["model_name"] == nil {
		return none{}, missing("endpoint_name, model_name")
	}
	return none{}, s.store.Tx(ctx, func(tx store.Tx) error { return s.keepContainer(ctx, tx, id, fields) })
}

// reportContainer says how an endpoint of an instance is; one that isn't registered is so
// by its first report.
func (s *Server) reportContainer(ctx context.Context, _ *Call, req Fields) (none, error) {
	id, fields, err := takeContainer(req)
	if err != nil {
		return none{}, err
	}
	return none{}, s.store.Tx(ctx, func(tx store.Tx) error {
		if err := s.keepContainer(ctx, tx, id, fields); err != nil {
			return err
		}
		return s.noteSample(ctx, tx, id, fields)
	})
}

func (s *Server) keepContainer(ctx context.Context, tx store.Tx, id string, fields Fields) error {
	doc, err := tx.Get(ctx, store.Container, id)
	known := err == nil
	if errors.Is(err, store.ErrNotFound) {
		doc = store.Doc{"id": id, "created": s.timestamp()}
	} else if err != nil {
		return err
	}
	maps.Copy(doc, fields)
	doc["last_update"] = s.timestamp()
	if known {
		return tx.Put(ctx, store.Container, doc)
	}
	if err := s.forgetContainers(ctx, tx); err != nil {
		return err
	}
	return tx.Insert(ctx, store.Container, doc)
}

// forgetContainers removes those that nobody has heard of for a day.
func (s *Server) forgetContainers(ctx context.Context, tx store.Tx) error {
	old := store.FormatTime(s.now().Add(-24 * time.Hour))
	docs, err := tx.Query(ctx, store.Container, store.Query{Where: store.Compare{Path: store.Path{"last_update"}, Op: store.Less, Value: old}, Limit: 100})
	if err != nil {
		return err
	}
	for _, doc := range docs {
		if err := tx.Delete(ctx, store.Container, doc.ID()); err != nil {
			return err
		}
	}
	return nil
}

type containerRequest struct {
	ContainerID string `json:"container_id"`
}

// unregisterContainer takes an endpoint of an instance off the list; an unknown one is
// off it already.
func (s *Server) unregisterContainer(ctx context.Context, _ *Call, req containerRequest) (none, error) {
	if req.ContainerID == "" {
		return none{}, missing("container_id")
	}
	err := s.store.Tx(ctx, func(tx store.Tx) error { return tx.Delete(ctx, store.Container, req.ContainerID) })
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return none{}, err
}

// containers lists those that are alive.
func (s *Server) containers(ctx context.Context) ([]store.Doc, error) {
	docs, err := s.store.Query(ctx, store.Container, store.Query{Order: []store.Order{{Path: store.Path{"created"}}}})
	return slices.DeleteFunc(docs, func(doc store.Doc) bool {
		seen, err := store.ParseTime(doc.Text("last_update"))
		life := cmp.Or(time.Duration(floatOf(doc["timeout"])*float64(time.Second)), containerLife)
		return err != nil || s.now().Sub(seen).Abs() > life // of the future: from before our clock was set back
	}), err
}

func floatOf(v any) float64 {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil {
		return 0
	}
	return f
}

// servedEndpoint is an endpoint over all instances.
type servedEndpoint struct {
	Endpoint    string  `json:"endpoint"`
	Model       string  `json:"model"`
	URL         string  `json:"url"`
	Instances   int     `json:"instances"`
	UptimeSec   float64 `json:"uptime_sec"`
	Requests    float64 `json:"requests"`
	RequestsMin float64 `json:"requests_min"`
	LatencyMS   float64 `json:"latency_ms"`
	LastUpdate  string  `json:"last_update"`
}

// add joins an instance: requests add up, the time of an answer is their mean, weighed
// by how many requests each answers.
func (e *servedEndpoint) add(doc store.Doc) {
	perMinute := floatOf(doc["requests_min"])
	before, weight := float64(e.Instances), perMinute
	if e.RequestsMin+perMinute > 0 {
		before = e.RequestsMin
	} else {
		weight = 1
	}
	e.LatencyMS = (e.LatencyMS*before + floatOf(doc["latency_ms"])*weight) / (before + weight)
	e.Instances++
	e.UptimeSec = max(e.UptimeSec, floatOf(doc["uptime_sec"]))
	e.Requests += floatOf(doc["requests_num"])
	e.RequestsMin += perMinute
	e.LastUpdate = max(e.LastUpdate, doc.Text("last_update"))
}

// endpointKey is what makes endpoints of several instances the same one.
func endpointKey(doc store.Doc) string {
	return cmp.Or(doc.Text("endpoint_url"), doc.Text("endpoint_name"))
}

type servedEndpoints struct {
	Endpoints []*servedEndpoint `json:"endpoints"`
}

// servingEndpoints lists endpoints with what their instances report.
func (s *Server) servingEndpoints(ctx context.Context, _ *Call, _ none) (servedEndpoints, error) {
	docs, err := s.containers(ctx)
	answer := servedEndpoints{Endpoints: []*servedEndpoint{}}
	byName := map[[2]string]*servedEndpoint{}
	for _, doc := range docs {
		if doc.Text("endpoint_url") == "" {
			continue // it loads
		}
		key := [2]string{doc.Text("endpoint_name"), doc.Text("model_name")}
		e, ok := byName[key]
		if !ok {
			e = &servedEndpoint{Endpoint: key[0], Model: key[1], URL: doc.Text("endpoint_url")}
			byName[key] = e
			answer.Endpoints = append(answer.Endpoints, e)
		}
		e.add(doc)
	}
	return answer, err
}

// servedInstance is one instance of an endpoint.
type servedInstance struct {
	ID          string  `json:"id"`
	Endpoint    string  `json:"endpoint"`
	URL         string  `json:"url"`
	Reference   any     `json:"reference,omitempty"`
	UptimeSec   float64 `json:"uptime_sec"`
	Requests    float64 `json:"requests"`
	RequestsMin float64 `json:"requests_min"`
	LatencyMS   float64 `json:"latency_ms"`
	LastUpdate  string  `json:"last_update"`
	Machine     any     `json:"machine_stats,omitempty"`
}

func instanceOf(doc store.Doc) servedInstance {
	return servedInstance{
		ID: doc.ID(), Endpoint: doc.Text("endpoint_name"), URL: doc.Text("endpoint_url"), Reference: doc["reference"],
		UptimeSec: floatOf(doc["uptime_sec"]), Requests: floatOf(doc["requests_num"]), RequestsMin: floatOf(doc["requests_min"]),
		LatencyMS: floatOf(doc["latency_ms"]), LastUpdate: doc.Text("last_update"), Machine: doc["machine_stats"],
	}
}

type endpointRequest struct {
	EndpointURL string      `json:"endpoint_url"`
	FromDate    json.Number `json:"from_date"`
	ToDate      json.Number `json:"to_date"`
	Interval    json.Number `json:"interval"`
	MetricType  string      `json:"metric_type"`
}

type endpointDetails struct {
	servedEndpoint
	PreprocessArtifact string           `json:"preprocess_artifact,omitempty"`
	InputType          string           `json:"input_type,omitempty"`
	InputSize          any              `json:"input_size,omitempty"`
	ModelSource        string           `json:"model_source,omitempty"`
	ModelVersion       string           `json:"model_version,omitempty"`
	Instances          []servedInstance `json:"instances"`
}

// servingEndpoint returns an endpoint with each of its instances.
func (s *Server) servingEndpoint(ctx context.Context, _ *Call, req endpointRequest) (endpointDetails, error) {
	answer := endpointDetails{Instances: []servedInstance{}}
	if req.EndpointURL == "" {
		return answer, missing("endpoint_url")
	}
	docs, err := s.containers(ctx)
	if err != nil {
		return answer, err
	}
	for _, doc := range docs {
		if endpointKey(doc) != req.EndpointURL {
			continue
		}
		answer.Endpoint, answer.Model, answer.URL = doc.Text("endpoint_name"), doc.Text("model_name"), doc.Text("endpoint_url")
		answer.PreprocessArtifact, answer.InputType, answer.InputSize = doc.Text("preprocess_artifact"), doc.Text("input_type"), doc["input_size"]
		answer.ModelSource, answer.ModelVersion = doc.Text("model_source"), doc.Text("model_version")
		answer.add(doc)
		answer.Instances = append(answer.Instances, instanceOf(doc))
	}
	if len(answer.Instances) == 0 {
		return answer, refuse(subInvalidID, "No instance serves the endpoint: endpoint_url=%s", req.EndpointURL)
	}
	return answer, nil
}

// loadingInstances lists what is registered but has no address yet.
func (s *Server) loadingInstances(ctx context.Context, _ *Call, _ none) (map[string]any, error) {
	docs, err := s.containers(ctx)
	instances := []servedInstance{}
	for _, doc := range docs {
		if doc.Text("endpoint_url") == "" {
			instances = append(instances, instanceOf(doc))
		}
	}
	return map[string]any{"instances": instances}, err
}
