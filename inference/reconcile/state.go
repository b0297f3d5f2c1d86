package reconcile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"clearmlserving/serving"
)

// State is all data about a service that an instance needs to serve it. It is stored on disk as the
// last good configuration.
type State struct {
	ServiceID   string                              `json:"service_id"`
	ServiceName string                              `json:"service_name"`
	Project     string                              `json:"project"`
	Changed     time.Time                           `json:"changed,omitzero"` // the last write to the service's task before it was read
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
	// Known has what this instance knows of revisions, in the form of the section of that name. It
	// goes beyond the stored section while that cannot be written.
	Known json.RawMessage `json:"known_revisions,omitempty"`
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
	// Framework is the library that the model was made with, as its record says.
	Framework string `json:"framework,omitempty"`
	// Reference is the model's summary of the data that variables are compared with, "" for none.
	Reference string `json:"reference,omitempty"`
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
	planned serving.PlannedEndpoint
	code    File
	model   File
	// stored is the model's file, and recordChanged the marker of its record, also if model is empty because the
	// model is loaded elsewhere.
	stored        File
	recordChanged string
	variables     []string
	logShare      float64
	framework     string        // of the model, as its record says
	impossible    string        // why it cannot be loaded, known in advance
	golden        *wantedGolden // what it must reproduce before it goes live, nil for nothing
	limits        *serving.Limits
	// loads changes whenever something else must be fetched or loaded.
	loads string
	// key changes whenever a failure of before says nothing: with loads, the golden samples, and a
	// repeated deployment.
	key      string
	revision serving.Revision // what this is
	choice   serving.Choice   // why this revision is loaded
	base     *want            // served until this is live, nil for nothing
}

// content is what the configuration deploys under a URL now.
func (s *State) content(e serving.PlannedEndpoint, options serving.EndpointOptions) serving.Content {
	c := serving.Content{Endpoint: e.Endpoint, Code: e.Code, Limits: options.Limits, Golden: options.Golden}
	if c.Code == nil && e.PreprocessArtifact != "" {
		c.Code = s.code(e.PreprocessArtifact)
	}
	if model := s.Models[e.ModelID]; model.Missing == "" {
		c.ModelURI = model.URI
	}
	return c
}

// code is the code that an artifact refers to, nil if there is no such artifact.
func (s *State) code(artifact string) *serving.ModelCode {
	a, ok := s.Artifacts[artifact]
	if !ok {
		return nil
	}
	return &serving.ModelCode{URI: a.URI, SHA256: a.SHA256, Folder: a.Folder}
}

// want collects the inputs of a revision of a planned endpoint. A missing artifact or model is an
// error of that endpoint only. share is the service's share of logged requests.
func (s *State) want(url serving.EndpointURL, e serving.PlannedEndpoint, r serving.Revision, share float64) want {
	if e.Metrics.LogFrequency != nil {
		share = *e.Metrics.LogFrequency
	}
	e.Endpoint = r.Endpoint
	if e.Code != nil {
		e.Code = r.Code
	}
	e.Parameters = e.Parameters.For(e.EngineType)
	w := want{planned: e, revision: r, logShare: share, limits: r.Limits}
	w.variables = loggedVariables(e)
	code := ""
	if r.Code != nil {
		w.code = File{URL: r.Code.URI, SHA256: r.Code.SHA256, Unpack: r.Code.Folder}
		code = cmp.Or(r.Code.SHA256, r.Code.URI)
	} else if name := e.PreprocessArtifact; name != "" {
		w.impossible = fmt.Sprintf("could not find preprocessing artifact '%s' on Task id=%s", name, s.ServiceID)
	}
	changed := ""
	if e.ModelID != "" {
		model, ok := s.Models[e.ModelID]
		switch {
		case r.ModelURI != "":
			model.URI = r.ModelURI
		case !ok:
			w.impossible = fmt.Sprintf("model %s does not exist in the model repository", e.ModelID)
		case model.Missing != "":
			w.impossible = model.Missing
		}
		w.stored, w.framework, w.recordChanged = File{URL: model.URI, Unpack: isArchive(model.URI)}, model.Framework, model.Changed
		if !serving.ModelElsewhere(e.EngineType) || code != "" { // a method load of the code gets the file
			w.model, changed = w.stored, model.Changed
		}
	}
	w.loads = digest(append([]any{url, e.Endpoint, code, w.code.Unpack, w.model, changed, w.impossible, w.limits}, parametersOf(e)...)...)
	w.key = w.loads
	return w
}

// parametersOf are the parameters as a part of a digest, if the endpoint's engine reads any.
func parametersOf(e serving.PlannedEndpoint) []any {
	if e.Parameters == (serving.Parameters{}) {
		return nil
	}
	return []any{e.Parameters}
}

// Hash is the change marker of the state, in the original's form: 32 hex digits.
func (s *State) Hash() string { return s.settings().StateHash(s.artifactHashes()) }

// digests are the change markers of the single URLs.
func (s *State) digests() map[serving.EndpointURL]string {
	return s.settings().Digests(s.artifactHashes())
}

// settings decodes what the change markers are made of: the configuration without its revisions.
func (s *State) settings() serving.Service {
	sections := maps.Clone(s.Sections)
	delete(sections, serving.SectionRevisions)
	return serving.Configuration{Sections: sections, Unreadable: s.Unreadable, General: s.General}.Decode()
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
