package clearml

import (
	"context"
	"encoding/json"
	"errors"
)

// Model is a model of the repository.
type Model struct {
	ID         string        `json:"id"`
	Name       string        `json:"name"`
	ProjectID  string        `json:"project"`
	TaskID     string        `json:"task"` // the task that created it
	ParentID   string        `json:"parent"`
	Framework  string        `json:"framework"`
	URI        string        `json:"uri"`
	Comment    string        `json:"comment"`
	Tags       []string      `json:"tags"`
	SystemTags []string      `json:"system_tags"`
	Ready      bool          `json:"ready"` // published
	Created    Time          `json:"created"`
	LastUpdate Time          `json:"last_update"`
	LastChange Time          `json:"last_change"`
	Metadata   ModelMetadata `json:"metadata"`
}

// ModelMetadata has the values that users attach to a model, by key.
type ModelMetadata map[string]string

// MarshalJSON writes the map that servers accept at the creation of a model.
func (m ModelMetadata) MarshalJSON() ([]byte, error) {
	items := make(map[string]map[string]string, len(m))
	for key, value := range m {
		items[key] = map[string]string{"key": key, "type": "str", "value": value}
	}
	return json.Marshal(items)
}

// UnmarshalJSON reads the map of new servers and the list of old ones; it never fails.
func (m *ModelMetadata) UnmarshalJSON(text []byte) error {
	type item struct {
		Key   string `json:"key"`
		Value Text   `json:"value"`
	}
	*m = ModelMetadata{}
	var byKey map[string]json.RawMessage
	if json.Unmarshal(text, &byKey) == nil {
		for key, raw := range byKey {
			var i item
			if json.Unmarshal(raw, &i) == nil {
				(*m)[key] = string(i.Value)
			}
		}
		return nil
	}
	var list []item
	if json.Unmarshal(text, &list) == nil {
		for _, i := range list {
			(*m)[i.Key] = string(i.Value)
		}
	}
	return nil
}

// ModelFilter selects models; its conditions are joined by "and", empty ones do
// not count. Archived models are only selected WithArchived.
type ModelFilter struct {
	IDs           []string
	Name          string // a regular expression, see QuotePattern
	ProjectID     string
	URI           string
	Tags          []string // any of them; "-x" and the server's operators work
	Metadata      map[string]string
	PublishedOnly bool
	WithArchived  bool
	NewestFirst   bool     // by creation, as in monitoring
	Fields        []string // dotted paths to return, empty for everything
	Limit         int      // 0: all
}

// Models lists the models that a filter selects.
func (c *Client) Models(ctx context.Context, f ModelFilter) ([]Model, error) {
	q := query{}
	if !f.WithArchived {
		q["system_tags"] = []string{"-archived"}
	}
	q.list("id", f.IDs)
	q.text("name", f.Name)
	q.list("tags", f.Tags)
	q.list("only_fields", f.Fields)
	for key, value := range map[string]string{"project": f.ProjectID, "uri": f.URI} {
		if value != "" {
			q[key] = []string{value}
		}
	}
	for key, value := range f.Metadata {
		q["metadata."+key+".value"] = value
	}
	if f.PublishedOnly {
		q["ready"] = true
	}
	if f.NewestFirst {
		q["order_by"] = []string{"-created"}
	}
	return getAll(ctx, c, "models.get_all", q, f.Limit, func(m Model) string { return m.ID })
}

// Model reads a model's document.
func (c *Client) Model(ctx context.Context, id string) (Model, error) {
	return byID(ctx, c, "models.get_by_id", id, func(m Model) string { return m.ID })
}

// NewModel describes a model to register.
type NewModel struct {
	Name      string   `json:"name"`
	URI       string   `json:"uri"`
	ProjectID string   `json:"project,omitempty"`
	TaskID    string   `json:"task,omitempty"`
	Framework string   `json:"framework,omitempty"`
	Comment   string   `json:"comment,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	// SystemTags has PackagedTag if the file is a packed folder.
	SystemTags []string       `json:"system_tags,omitempty"`
	Labels     map[string]int `json:"labels,omitempty"`
	Metadata   ModelMetadata  `json:"metadata,omitempty"`
	Ready      bool           `json:"ready"` // always sent: servers read a missing one as true
}

// PackagedTag tells the SDK to unpack a model's file.
const PackagedTag = "package"

// CreateModel registers a model, as a draft unless Ready is set, and returns its id.
func (c *Client) CreateModel(ctx context.Context, m NewModel) (string, error) {
	if err := checkName("model", m.Name); err != nil {
		return "", err
	}
	return c.create(ctx, "models.create", m)
}

// PublishModel makes a model ready. One that is ready already is no error.
func (c *Client) PublishModel(ctx context.Context, id string) error {
	err := c.Call(ctx, "models.set_ready", map[string]any{"model": id, "publish_task": false}, nil)
	var refusal *Error
	if errors.As(err, &refusal) && refusal.Code == 400 && refusal.Subcode == 203 {
		return nil
	}
	return err
}
