package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"clearmlserving/serving"
)

// State is all data about a service that an instance needs to serve it. It is stored on disk as the
// last good configuration.
type State struct {
	ServiceID   string                              `json:"service_id"`
	ServiceName string                              `json:"service_name"`
	Project     string                              `json:"project"`
	Sections    map[serving.Section]json.RawMessage `json:"sections"`
	// Unreadable has the sections whose text could not be parsed, with the cause.
	Unreadable map[serving.Section]string `json:"unreadable,omitempty"`
	General    map[string]string          `json:"general"`
	Artifacts  map[string]Artifact        `json:"artifacts"`
	// Models has the data of each model that an endpoint names.
	Models map[serving.ModelID]Model `json:"models"`
	// Found has the models of each monitoring, newest first.
	Found    map[string][]serving.MonitoredModel `json:"found"`
	Versions serving.Versions                    `json:"versions"`
	// Trouble has, per monitoring, the reason why its models could not be queried.
	Trouble map[string]string `json:"trouble,omitempty"`
	// Kept lists the unusable parts of the configuration that are here in their last good form.
	Kept []serving.Kept `json:"kept,omitempty"`
}

// Keep replaces unusable parts of the configuration by their last good form, from an earlier state
// of the same service. nil: there is none.
func (s *State) Keep(last *State) {
	if last == nil || last.ServiceID != s.ServiceID {
		return
	}
	now := serving.Configuration{Sections: s.Sections, Unreadable: s.Unreadable, General: s.General}
	good := serving.Configuration{Sections: last.Sections, General: last.General}
	now, s.Kept = serving.KeepLast(now, good)
	s.Sections, s.Unreadable, s.General = now.Sections, now.Unreadable, now.General
}

// Artifact is a file registered on a task.
type Artifact struct {
	URI    string `json:"uri"`
	SHA256 string `json:"sha256"`
	Folder bool   `json:"folder"` // a packed folder
}

// Model is a model of the repository.
type Model struct {
	Name    string `json:"name"`
	URI     string `json:"uri"`
	Changed string `json:"changed"`           // a marker that changes when the model is edited
	Missing string `json:"missing,omitempty"` // why it cannot be fetched, "" if it can
}

// service decodes the configuration.
func (s *State) service() serving.Service {
	service := serving.Configuration{Sections: s.Sections, Unreadable: s.Unreadable, General: s.General}.Decode()
	for _, k := range s.Kept {
		why := k.Why
		if k.Key == "" {
			why = fmt.Sprintf("configuration section %q cannot be read: %s", k.Section, why)
		}
		service.Broken = append(service.Broken, serving.BrokenRecord{Section: k.Section, Key: k.Key, Err: errors.New(why + "; its last good form stays in force"), Kept: true})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Trouble)) {
		service.Broken = append(service.Broken, serving.BrokenRecord{Section: serving.SectionMonitoring, Key: key, Err: fmt.Errorf("model_monitoring %q: %s", key, s.Trouble[key]), Kept: true})
	}
	return service
}

// want is a configured endpoint: what to fetch and load.
type want struct {
	planned    serving.PlannedEndpoint
	code       File
	model      File
	variables  []string
	logShare   float64
	impossible string        // why it cannot be loaded, known in advance
	golden     *wantedGolden // what it must reproduce before it goes live, nil for nothing
	limits     *serving.Limits
	// key changes whenever something must be fetched or loaded again.
	key string
}

// want collects the inputs of an endpoint. A missing artifact or model is an error of that endpoint
// only. share is the service's share of logged requests.
func (s *State) want(url serving.EndpointURL, e serving.PlannedEndpoint, options serving.EndpointOptions, share float64) want {
	if e.Metrics.LogFrequency != nil {
		share = *e.Metrics.LogFrequency
	}
	w := want{planned: e, logShare: share, golden: s.golden(options.Golden), limits: options.Limits}
	w.variables = slices.Sorted(maps.Keys(e.Metrics.Metrics))
	if name := e.PreprocessArtifact; e.Code != nil {
		w.code = File{URL: e.Code.URI, SHA256: e.Code.SHA256, Unpack: e.Code.Folder}
	} else if name != "" {
		artifact, ok := s.Artifacts[name]
		if !ok {
			w.impossible = fmt.Sprintf("could not find preprocessing artifact '%s' on Task id=%s", name, s.ServiceID)
		}
		w.code = File{URL: artifact.URI, SHA256: artifact.SHA256, Unpack: artifact.Folder}
	}
	changed := ""
	if e.ModelID != "" {
		model, ok := s.Models[e.ModelID]
		switch {
		case !ok:
			w.impossible = fmt.Sprintf("model %s does not exist in the model repository", e.ModelID)
		case model.Missing != "":
			w.impossible = model.Missing
		}
		w.model, changed = File{URL: model.URI, Unpack: isArchive(model.URI)}, model.Changed
	}
	parts := []any{url, e.Endpoint, w.code, w.model, changed, w.impossible, w.limits}
	if w.golden != nil {
		parts = append(parts, w.golden.Golden, w.golden.file)
	}
	w.key = digest(parts...)
	return w
}

// Hash is the change marker of the state, in the original's form: 32 hex digits.
func (s *State) Hash() string { return s.service().StateHash(s.artifactHashes()) }

// digests are the change markers of the single URLs.
func (s *State) digests() map[serving.EndpointURL]string {
	return s.service().Digests(s.artifactHashes())
}

func (s *State) artifactHashes() map[string]string {
	hashes := map[string]string{}
	for name, a := range s.Artifacts {
		hashes[name] = a.SHA256
	}
	return hashes
}

// digest makes a comparable key from the inputs of a load.
func digest(values ...any) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			_, _ = fmt.Fprintf(h, "%v", err) // a value that cannot be encoded is constant; hashes never fail
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
