package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// The bounds of what is kept of one task. An edit whose texts are longer together is
// noted without them: it can be seen, but not taken back.
const (
	maxConfigurationEdits = 200
	maxEditText           = 256 << 10
)

// configurationChange is what one edit did to one section.
type configurationChange struct {
	Section string `json:"section"`
	// Action is "added", "changed", or "removed".
	Action string `json:"action"`
	// Before and After are the texts, absent where there was no section or no text kept.
	Before *string `json:"before,omitempty"`
	After  *string `json:"after,omitempty"`
	// The hashes are those that tasks.edit_configuration's if_match takes: SHA-256 in hex,
	// "" without a section.
	BeforeSHA256 string `json:"before_sha256"`
	AfterSHA256  string `json:"after_sha256"`
}

// noteConfiguration keeps who changed which section of a task's configuration, and from
// what to what, in the transaction of the edit itself. Without a difference there is
// nothing to keep. reverted names the edit that this one takes back, if any.
func (w *work) noteConfiguration(ctx context.Context, c *Call, doc store.Doc, before map[string]any, reverted string) error {
	changes := compareConfigurations(before, doc.Object("configuration"))
	if kind := doc.Text("type"); len(changes) == 0 || kind == "inference" || kind == "monitor" {
		return nil // instances write how they are there, every few seconds
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
	return w.forgetOldEdits(ctx, doc.ID())
}

// noteServiceConfiguration keeps edits that come by tasks.edit, as the upstream CLI's do,
// for services only: a training's configuration is written by its own process.
func (w *work) noteServiceConfiguration(ctx context.Context, c *Call, doc store.Doc, before map[string]any) error {
	if doc.Text("type") != "service" {
		return nil
	}
	return w.noteConfiguration(ctx, c, doc, before, "")
}

// forgetOldEdits keeps the history of a task within its bound.
func (w *work) forgetOldEdits(ctx context.Context, task string) error {
	n, err := w.Count(ctx, store.ConfigurationEdit, documents.Is(task, "task"))
	if err != nil || n <= maxConfigurationEdits {
		return err
	}
	return w.removeEdits(ctx, store.Query{Where: documents.Is(task, "task"), Order: oldestEditFirst, Limit: n - maxConfigurationEdits})
}

var (
	oldestEditFirst = []store.Order{{Path: store.Path{"created"}}}
	newestEditFirst = []store.Order{{Path: store.Path{"created"}, Desc: true}}
)

func (w *work) removeEdits(ctx context.Context, q store.Query) error {
	edits, err := w.Query(ctx, store.ConfigurationEdit, q)
	if err != nil {
		return err
	}
	for _, edit := range edits {
		if err := w.Delete(ctx, store.ConfigurationEdit, edit.ID()); err != nil {
			return err
		}
	}
	return nil
}

// clientName is how the program that makes a call names itself.
func clientName(c *Call) string {
	const longest = 200
	name := cmp.Or(c.HTTP.Header.Get("X-ClearML-Client"), c.HTTP.Header.Get("X-Trains-Client"), c.HTTP.UserAgent())
	return name[:min(len(name), longest)]
}

// compareConfigurations returns the sections that differ, by name, in the form in which
// documents hold them.
func compareConfigurations(before, after map[string]any) []any {
	size := 0
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var changes []map[string]any
	for _, name := range slices.Sorted(maps.Keys(names)) {
		old, was := sectionText(before, name)
		now, is := sectionText(after, name)
		if was == is && old == now {
			continue
		}
		size += len(old) + len(now)
		change := map[string]any{"section": name, "action": "changed", "before_sha256": "", "after_sha256": ""}
		if was {
			change["before"], change["before_sha256"] = old, textHash(old)
		} else {
			change["action"] = "added"
		}
		if is {
			change["after"], change["after_sha256"] = now, textHash(now)
		} else {
			change["action"] = "removed"
		}
		changes = append(changes, change)
	}
	out := make([]any, len(changes))
	for i, change := range changes {
		if size > maxEditText {
			delete(change, "before")
			delete(change, "after")
		}
		out[i] = change
	}
	return out
}

func sectionText(sections map[string]any, name string) (text string, exists bool) {
	_, exists = sections[name]
	return store.Doc(sections).Text(name, "value"), exists
}

// textHash is the hash by which a section's text is named in if_match.
func textHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

type configurationHistoryRequest struct {
	Task string `json:"task"`
	// Names limits the answer to edits that touched one of these sections.
	Names    []string `json:"names"`
	Page     int      `json:"page"`
	PageSize int      `json:"page_size"`
}

type configurationEdit struct {
	ID      string `json:"id"`
	Task    string `json:"task"`
	Created string `json:"created"`
	User    struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"user"`
	// Client is how the program called itself, Call what it called.
	Client string `json:"client,omitempty"`
	Call   string `json:"call"`
	// Reverted is the edit that this one took back, if it did.
	Reverted string                `json:"reverted,omitempty"`
	Sections []configurationChange `json:"sections"`
	// Revertible says that the texts of before are kept.
	Revertible bool `json:"revertible"`
}

type configurationHistoryAnswer struct {
	Total int                 `json:"total"`
	Edits []configurationEdit `json:"edits"`
}

// getConfigurationHistory is our extension, announced in server.info as
// "configuration_history": the edits of a task's configuration, newest first.
func (s *Server) getConfigurationHistory(ctx context.Context, _ *Call, req configurationHistoryRequest) (configurationHistoryAnswer, error) {
	answer := configurationHistoryAnswer{Edits: []configurationEdit{}}
	switch {
	case req.Task == "":
		return answer, documents.Missing("task")
	case req.Page < 0 || req.PageSize < 0 || req.Page > maxConfigurationEdits:
		return answer, documents.Invalid("page and page_size must be 0 or more, page at most %d", maxConfigurationEdits)
	}
	if _, err := s.store.Get(ctx, store.Task, req.Task); err != nil {
		return answer, documents.NotFound(err, store.Task, req.Task)
	}
	where := store.And{documents.Is(req.Task, "task")}
	if len(req.Names) > 0 {
		where = append(where, store.In{Path: store.Path{"sections", "section"}, Values: anyTexts(req.Names)})
	}
	var err error
	if answer.Total, err = s.store.Count(ctx, store.ConfigurationEdit, where); err != nil {
		return answer, err
	}
	size := min(cmp.Or(req.PageSize, 50), documents.MaxPage)
	docs, err := s.store.Query(ctx, store.ConfigurationEdit, store.Query{Where: where, Order: newestEditFirst, Offset: req.Page * size, Limit: size})
	for _, doc := range docs {
		answer.Edits = append(answer.Edits, readEdit(doc))
	}
	return answer, err
}

func readEdit(doc store.Doc) configurationEdit {
	edit := configurationEdit{
		ID: doc.ID(), Task: doc.Text("task"), Created: doc.Text("created"), Client: doc.Text("client"),
		Call: doc.Text("call"), Reverted: doc.Text("reverted"), Sections: []configurationChange{}, Revertible: true,
	}
	edit.User.ID, edit.User.Name = doc.Text("user"), doc.Text("user_name")
	list, _ := doc["sections"].([]any)
	for _, item := range list {
		section, _ := item.(map[string]any)
		change := configurationChange{
			Section: documents.AsText(section["section"]), Action: documents.AsText(section["action"]),
			BeforeSHA256: documents.AsText(section["before_sha256"]), AfterSHA256: documents.AsText(section["after_sha256"]),
		}
		if text, ok := section["before"].(string); ok {
			change.Before = &text
		}
		if text, ok := section["after"].(string); ok {
			change.After = &text
		}
		if change.Before == nil && change.BeforeSHA256 != "" {
			edit.Revertible = false
		}
		edit.Sections = append(edit.Sections, change)
	}
	return edit
}

type revertConfigurationRequest struct {
	Task string `json:"task"`
	Edit string `json:"edit"`
	// Force takes the edit back although its sections were changed again since; those
	// later changes are lost.
	Force bool `json:"force"`
}

// revertConfiguration is our extension: it takes one edit back, so that each section
// that it touched is as before it. Other sections stay. When one of its sections was
// changed again since, the call is refused with subcode 122, unless forced.
func (s *Server) revertConfiguration(ctx context.Context, c *Call, req revertConfigurationRequest) (countAnswer, error) {
	if req.Edit == "" {
		return countAnswer{}, documents.Missing("edit")
	}
	err := s.changeTask(ctx, c, req.Task, func(w *work, doc store.Doc) error {
		stored, err := w.Get(ctx, store.ConfigurationEdit, req.Edit)
		if err != nil || stored.Text("task") != doc.ID() {
			return documents.NotFound(cmp.Or(err, store.ErrNotFound), store.ConfigurationEdit, req.Edit)
		}
		if err := guardRunning(doc, true); err != nil {
			return err
		}
		edit := readEdit(stored)
		if !edit.Revertible {
			return badRequest("Edit %s can't be taken back: its texts were too long to keep (more than %d KiB)", edit.ID, maxEditText>>10)
		}
		before := maps.Clone(doc.Object("configuration"))
		for _, change := range edit.Sections {
			if !req.Force {
				if err := checkUnchanged(doc, map[string]string{change.Section: change.AfterSHA256}); err != nil {
					return err
				}
			}
			restoreSection(doc.Object("configuration"), change)
		}
		doc["last_update"] = w.Now
		return w.noteConfiguration(ctx, c, doc, before, edit.ID)
	})
	return countAnswer{1}, err
}

// restoreSection brings one section back to what it was before a change.
func restoreSection(sections map[string]any, change configurationChange) {
	if change.Before == nil {
		delete(sections, change.Section)
		return
	}
	section := map[string]any{"name": change.Section}
	if now, ok := sections[change.Section].(map[string]any); ok {
		maps.Copy(section, now) // its type and description
	}
	section["value"] = *change.Before
	sections[change.Section] = section
}
