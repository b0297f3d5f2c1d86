package api

import (
	"context"
	"maps"
	"slices"
	"strconv"
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
	section, err := takeTexts(item, "configuration section "+strconv.Quote(name), "value", "type", "description")
	section["name"] = name
	return section, err
}

// takeTexts picks keys of an object that hold texts, where they are set.
func takeTexts(item map[string]any, of string, keys ...string) (map[string]any, error) {
	out := map[string]any{}
	for _, key := range keys {
		if item[key] == nil {
			continue
		}
		if _, ok := item[key].(string); !ok {
			return out, documents.Invalid("%s of %s must be a text", key, of)
		}
		out[key] = item[key]
	}
	return out, nil
}

type editConfigurationRequest struct {
	Task          string           `json:"task"`
	Configuration []map[string]any `json:"configuration" required:"true"`
	Replace       bool             `json:"replace_configuration"`
	Force         bool             `json:"force"`
	// IfMatch is our extension, announced in server.info as "conditional_configuration":
	// for each section named, the SHA-256 in hex of the value that it must have now, ""
	// if it must be absent. If one differs, the call is refused with subcode 122 and
	// nothing is written, so that no edit made in between is lost.
	IfMatch map[string]string `json:"if_match"`
}

// editConfiguration adds and changes sections of a task's configuration; the others stay.
func (s *Server) editConfiguration(ctx context.Context, c *Call, req editConfigurationRequest) (counts, error) {
	sections := map[string]any{}
	for _, item := range req.Configuration {
		if item["value"] == nil {
			return nil, documents.Invalid("configuration section %q lacks its value", documents.AsText(item["name"]))
		}
		section, err := checkSection(item, documents.AsText(item["name"]))
		if err != nil {
			return nil, err
		}
		sections[section["name"].(string)] = section
	}
	return s.changeRun(ctx, c, req.Task, req.Force, func(w *work, doc store.Doc) error {
		if err := checkUnchanged(doc, req.IfMatch); err != nil {
			return err
		}
		before := maps.Clone(doc.Object("configuration"))
		if req.Replace {
			doc["configuration"] = map[string]any{}
		}
		maps.Copy(doc.Object("configuration"), sections)
		return w.noteConfiguration(ctx, c, doc, before, "")
	})
}

// checkUnchanged compares the sections of a task with the hashes that a caller has seen.
func checkUnchanged(doc store.Doc, ifMatch map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(ifMatch)) {
		if have, _ := sectionHash(doc.Object("configuration"), name); have != strings.ToLower(ifMatch[name]) {
			return documents.Refuse(subStale, "Stale configuration: task=%s, section=%s was changed in between: read it again and repeat the edit", doc.ID(), name)
		}
	}
	return nil
}
