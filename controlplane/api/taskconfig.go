package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// checkConfiguration brings {name: {…}} to its form: each section knows its name and
// holds texts only. The text of a section is kept byte for byte.
func checkConfiguration(sections map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for name, v := range sections {
		item, ok := v.(map[string]any)
		if !ok {
			return nil, documents.Invalid("configuration.%s must be an object", name)
		}
		section, err := checkSection(item, name)
		if err != nil {
			return nil, err
		}
		out[section["name"].(string)] = section
	}
	return out, nil
}

func checkSection(item map[string]any, name string) (map[string]any, error) {
	if name = strings.TrimSpace(name); name == "" {
		return nil, documents.Invalid("a section of the configuration has no name")
	}
	section := map[string]any{"name": name}
	for _, key := range []string{"value", "type", "description"} {
		if item[key] == nil {
			continue
		}
		if _, ok := item[key].(string); !ok {
			return nil, documents.Invalid("%s of configuration section %q must be a text", key, name)
		}
		section[key] = item[key]
	}
	return section, nil
}

type editConfigurationRequest struct {
	Task          string           `json:"task"`
	Configuration []map[string]any `json:"configuration"`
	Replace       bool             `json:"replace_configuration"`
	Force         bool             `json:"force"`
	// IfMatch is our extension, announced in server.info as "conditional_configuration":
	// for each section named, the SHA-256 in hex of the value that it must have now, ""
	// when it must be absent. When one differs, the call is refused with subcode 122 and
	// nothing is written, so that no edit made in between is lost.
	IfMatch map[string]string `json:"if_match"`
}

// editConfiguration adds and changes sections of a task's configuration; the others stay.
func (s *Server) editConfiguration(ctx context.Context, c *Call, req editConfigurationRequest) (countAnswer, error) {
	if len(req.Configuration) == 0 {
		return countAnswer{}, documents.Missing("configuration")
	}
	var sections []map[string]any
	for _, item := range req.Configuration {
		if item["value"] == nil {
			return countAnswer{}, documents.Invalid("configuration section %q lacks its value", documents.AsText(item["name"]))
		}
		section, err := checkSection(item, documents.AsText(item["name"]))
		if err != nil {
			return countAnswer{}, err
		}
		sections = append(sections, section)
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, req.Force); err != nil {
			return err
		}
		if err := checkUnchanged(doc, req.IfMatch); err != nil {
			return err
		}
		before := maps.Clone(doc.Object("configuration"))
		if req.Replace {
			doc["configuration"] = map[string]any{}
		}
		stored := doc.Object("configuration")
		for _, section := range sections {
			stored[section["name"].(string)] = section
		}
		doc["last_update"] = w.Now
		return w.noteConfiguration(ctx, c, doc, before, "")
	})
	return countAnswer{1}, err
}

// checkUnchanged holds the sections of a task against the hashes that a caller has seen.
func checkUnchanged(doc store.Doc, ifMatch map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(ifMatch)) {
		_, exists := doc.Object("configuration")[name]
		want := strings.ToLower(ifMatch[name])
		have := ""
		if exists {
			have = textHash(doc.Text("configuration", name, "value"))
		}
		if have != want {
			return documents.Refuse(subStale, "Stale configuration: task=%s, section=%s was changed in between: read it again and repeat the edit", doc.ID(), name)
		}
	}
	return nil
}
