package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
	"clearmlserving/serving"
)

// checkConfiguration normalises {name: {…}}: each section has its name and holds only texts,
// which are stored byte for byte.
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

// takeTexts selects keys of an object, which must hold texts if they are set.
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

// The bounds of the history of one task. An edit whose texts are longer together is
// stored without them: it is listed, but cannot be reverted.
const (
	maxConfigurationEdits = 200
	maxEditText           = 256 << 10
)

// noteConfiguration stores who changed which section of a task's configuration, and from
// what to what, in the transaction of the edit. Without a difference it stores nothing.
// reverted names the edit that this one reverts, if any.
func (w *work) noteConfiguration(ctx context.Context, c *Call, doc store.Doc, before map[string]any, reverted string) error {
	changes := compareConfigurations(before, doc.Object("configuration"))
	if kind := doc.Text("type"); len(changes) == 0 || kind == "inference" || kind == "monitor" {
		return nil // instances write their state there, every few seconds
	}
	edit := store.Doc{
		"id": documents.NewID(), "task": doc.ID(), "company": c.Company, "user": c.User, "user_name": c.UserName,
		"created": w.Now, "call": c.Name, "client": clientName(c), "sections": changes,
	}
	if reverted != "" {
		edit["reverted"] = reverted
	}
	if err := w.Insert(ctx, store.ConfigurationEdit, edit); err != nil {
		return err
	}
	n, err := w.Count(ctx, store.ConfigurationEdit, documents.Is(doc.ID(), "task"))
	if err != nil || n <= maxConfigurationEdits {
		return err
	}
	oldestFirst := []store.Order{{Path: store.Path{"created"}}}
	return w.removeEdits(ctx, store.Query{Where: documents.Is(doc.ID(), "task"), Order: oldestFirst, Limit: n - maxConfigurationEdits})
}

func (w *work) removeEdits(ctx context.Context, q store.Query) error {
	return store.DeleteFound(ctx, w, store.ConfigurationEdit, q)
}

// clientName is how the program that makes a call names itself.
func clientName(c *Call) string {
	const longest = 200
	name := cmp.Or(c.HTTP.Header.Get("X-ClearML-Client"), c.HTTP.Header.Get("X-Trains-Client"), c.HTTP.UserAgent())
	return name[:min(len(name), longest)]
}

// compareConfigurations returns the sections that differ, by name. Each has its action,
// "added", "changed", or "removed"; its texts before and after, where there was a section;
// and their hashes, as tasks.edit_configuration's if_match takes them.
func compareConfigurations(before, after map[string]any) []any {
	size := 0
	both := maps.Clone(before)
	maps.Copy(both, after)
	changes := []any{}
	for _, name := range slices.Sorted(maps.Keys(both)) {
		if name == string(serving.SectionRevisions) {
			continue // it is a history itself, and no edit takes it back
		}
		oldHash, old := sectionHash(before, name)
		newHash, now := sectionHash(after, name)
		if oldHash == newHash {
			continue
		}
		change := map[string]any{"section": name, "action": "changed", "before_sha256": oldHash, "after_sha256": newHash}
		if oldHash == "" {
			change["action"] = "added"
		} else {
			change["before"] = old
		}
		if newHash == "" {
			change["action"] = "removed"
		} else {
			change["after"] = now
		}
		size += len(old) + len(now)
		changes = append(changes, change)
	}
	if size > maxEditText {
		for _, change := range changes {
			delete(change.(map[string]any), "before")
			delete(change.(map[string]any), "after")
		}
	}
	return changes
}

// sectionHash returns the SHA-256 in hex of a section's text, "" without the section, and the text.
func sectionHash(sections map[string]any, name string) (hash, text string) {
	if _, exists := sections[name]; !exists {
		return "", ""
	}
	text = store.Doc(sections).Text(name, "value")
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:]), text
}

type configurationHistoryRequest struct {
	Task string `json:"task" required:"true"`
	// Names limits the answer to edits that touched one of these sections.
	Names    []string `json:"names"`
	Page     int      `json:"page"`
	PageSize int      `json:"page_size"`
}

// getConfigurationHistory is our extension, announced in server.info as
// "configuration_history": the edits of a task's configuration, newest first.
func (s *Server) getConfigurationHistory(ctx context.Context, _ *Call, req configurationHistoryRequest) (map[string]any, error) {
	if req.Page < 0 || req.PageSize < 0 || req.Page > maxConfigurationEdits {
		return nil, documents.Invalid("page and page_size must be 0 or more, page at most %d", maxConfigurationEdits)
	}
	if _, err := s.find(ctx, store.Task, req.Task); err != nil {
		return nil, err
	}
	where := store.And{documents.Is(req.Task, "task")}
	if len(req.Names) > 0 {
		where = append(where, store.In{Path: store.Path{"sections", "section"}, Values: anyTexts(req.Names)})
	}
	total, err := s.store.Count(ctx, store.ConfigurationEdit, where)
	if err != nil {
		return nil, err
	}
	newestFirst := []store.Order{{Path: store.Path{"created"}, Desc: true}}
	size := min(cmp.Or(req.PageSize, 50), documents.MaxPage)
	edits, err := s.store.Query(ctx, store.ConfigurationEdit, store.Query{Where: where, Order: newestFirst, Offset: req.Page * size, Limit: size})
	for _, edit := range edits {
		edit["user"] = map[string]any{"id": edit["user"], "name": edit["user_name"]}
		edit["revertible"] = revertible(edit)
		delete(edit, "company")
		delete(edit, "user_name")
	}
	return map[string]any{"total": total, "edits": edits}, err
}

// revertible says whether the texts before an edit are stored.
func revertible(edit store.Doc) bool {
	return !slices.ContainsFunc(edit.Objects("sections"), func(change store.Doc) bool {
		return change["before"] == nil && change.Text("before_sha256") != ""
	})
}

type revertConfigurationRequest struct {
	Task string `json:"task"`
	Edit string `json:"edit" required:"true"`
	// Force reverts the edit although its sections were changed again since; those
	// later changes are lost.
	Force bool `json:"force"`
}

// revertConfiguration is our extension: it reverts one edit, so that each section
// that it touched is as before it. Other sections stay. If one of its sections was
// changed again since, the call is refused with subcode 122, unless forced.
func (s *Server) revertConfiguration(ctx context.Context, c *Call, req revertConfigurationRequest) (counts, error) {
	return s.changeContent(ctx, c, store.Task, req.Task, func(w *work, doc store.Doc) error {
		edit, err := w.Get(ctx, store.ConfigurationEdit, req.Edit)
		if err != nil || edit.Text("task") != doc.ID() {
			return documents.NotFound(cmp.Or(err, store.ErrNotFound), store.ConfigurationEdit, req.Edit)
		}
		if err := guardRunning(doc, true); err != nil {
			return err
		}
		if !revertible(edit) {
			return badRequest("Edit %s can't be reverted: its texts were too long to keep (more than %d KiB)", edit.ID(), maxEditText>>10)
		}
		before := maps.Clone(doc.Object("configuration"))
		for _, change := range edit.Objects("sections") {
			name := change.Text("section")
			if !req.Force {
				if err := checkUnchanged(doc, map[string]string{name: change.Text("after_sha256")}); err != nil {
					return err
				}
			}
			sections := doc.Object("configuration")
			if change["before"] == nil {
				delete(sections, name)
				continue
			}
			section := maps.Clone(store.Doc(sections).Object(name)) // with its type and description
			section["name"], section["value"] = name, change["before"]
			sections[name] = section
		}
		return w.noteConfiguration(ctx, c, doc, before, edit.ID())
	})
}
