package api

import (
	"context"
	"maps"
	"slices"
	"strings"

	"clearmlserving/controlplane/store"
)

// checkConfiguration brings {name: {…}} to its form: each section knows its name and
// holds texts only. The text of a section is kept byte for byte.
func checkConfiguration(sections map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for name, v := range sections {
		item, ok := v.(map[string]any)
		if !ok {
			return nil, invalid("configuration.%s must be an object", name)
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
		return nil, invalid("a section of the configuration has no name")
	}
	section := map[string]any{"name": name}
	for _, key := range []string{"value", "type", "description"} {
		if item[key] == nil {
			continue
		}
		if _, ok := item[key].(string); !ok {
			return nil, invalid("%s of configuration section %q must be a text", key, name)
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
	var sections []map[string]any
	for _, item := range req.Configuration {
		section, err := checkSection(item, asText(item["name"]))
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
		doc["last_update"] = w.now
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
			return refuse(subStale, "Stale configuration: task=%s, section=%s was changed in between: read it again and repeat the edit", doc.ID(), name)
		}
	}
	return nil
}

type configurationsRequest struct {
	Tasks     []string `json:"tasks"`
	Names     []string `json:"names"`
	SkipEmpty *bool    `json:"skip_empty"`
}

type configurationOf struct {
	Task          string   `json:"task"`
	Configuration []any    `json:"configuration,omitempty"`
	Names         []string `json:"names,omitempty"`
}

type configurationsAnswer struct {
	Configurations []configurationOf `json:"configurations"`
}

// getConfigurations returns sections of tasks' configurations, by name.
func (s *Server) getConfigurations(ctx context.Context, _ *Call, req configurationsRequest) (configurationsAnswer, error) {
	return s.eachConfiguration(ctx, req.Tasks, func(of *configurationOf, sections map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(sections)) {
			if len(req.Names) == 0 || slices.Contains(req.Names, name) {
				of.Configuration = append(of.Configuration, sections[name])
			}
		}
	})
}

// getConfigurationNames returns the names of the sections, without the empty ones
// unless asked for.
func (s *Server) getConfigurationNames(ctx context.Context, _ *Call, req configurationsRequest) (configurationsAnswer, error) {
	return s.eachConfiguration(ctx, req.Tasks, func(of *configurationOf, sections map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(sections)) {
			empty := store.Doc(sections).Text(name, "value") == ""
			if !empty || (req.SkipEmpty != nil && !*req.SkipEmpty) {
				of.Names = append(of.Names, name)
			}
		}
	})
}

func (s *Server) eachConfiguration(ctx context.Context, ids []string, fill func(*configurationOf, map[string]any)) (configurationsAnswer, error) {
	docs, err := s.tasksByID(ctx, ids)
	if err != nil {
		return configurationsAnswer{}, err
	}
	answer := configurationsAnswer{Configurations: []configurationOf{}}
	for _, doc := range docs {
		of := configurationOf{Task: doc.ID()}
		fill(&of, doc.Object("configuration"))
		answer.Configurations = append(answer.Configurations, of)
	}
	return answer, nil
}

type deleteConfigurationRequest struct {
	Task          string            `json:"task"`
	Configuration []string          `json:"configuration"`
	Force         bool              `json:"force"`
	IfMatch       map[string]string `json:"if_match"`
}

// deleteConfiguration removes sections; if_match is as in tasks.edit_configuration.
func (s *Server) deleteConfiguration(ctx context.Context, c *Call, req deleteConfigurationRequest) (deletedAnswer, error) {
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		if err := guardRunning(doc, req.Force); err != nil {
			return err
		}
		if err := checkUnchanged(doc, req.IfMatch); err != nil {
			return err
		}
		before := maps.Clone(doc.Object("configuration"))
		for _, name := range req.Configuration {
			delete(doc.Object("configuration"), strings.TrimSpace(name))
		}
		doc["last_update"] = w.now
		return w.noteConfiguration(ctx, c, doc, before, "")
	})
	return deletedAnswer{1}, err
}
