package operations

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// Author is who makes an edit, and why.
type Author struct {
	Name, Message string
	// Keep is how many revisions of the URL are kept from now on, 0: as before.
	Keep int
}

// deployment is what an edit deploys on purpose: also without a difference, it makes a
// new revision of a refused one.
type deployment struct {
	url serving.EndpointURL
	of  serving.Revision // the revision that is brought back, zero for none
}

// deploys tells whether a section decides how URLs answer.
func deploys(section serving.Section) bool {
	return section == serving.SectionEndpoints || section == serving.SectionMonitoring || section == serving.SectionOptions
}

// contents is what the configuration deploys under each URL of an endpoint or a
// monitoring. former asks for the code of before RegisterCode.
func (s *Service) contents(former bool) map[serving.EndpointURL]serving.Content {
	code := func(name string) *serving.ModelCode {
		artifact, ok := s.Doc.Artifacts[name]
		if old, replaced := s.replaced[name]; former && replaced {
			artifact, ok = old, old.URI != ""
		}
		if !ok {
			return nil
		}
		return CodeOf(artifact)
	}
	all := map[serving.EndpointURL]serving.Content{}
	for key := range s.Config.Monitoring {
		all[serving.CleanURL(key)] = serving.Content{}
	}
	for key := range s.Config.Endpoints {
		all[serving.CleanURL(key)] = serving.Content{}
	}
	for url := range all {
		all[url], _ = s.Config.ContentOf(url, code)
	}
	return all
}

// CodeOf is the code that an artifact refers to.
func CodeOf(a clearml.Artifact) *serving.ModelCode {
	return &serving.ModelCode{URI: a.URI, SHA256: a.Hash, Folder: a.Type == "archive"}
}

// record adds a revision for each URL that differs from its newest one: by another
// program, if it differed before the edit already, else by the author. It reports
// whether something was added.
func (s *Service) record(d deployment, before map[serving.EndpointURL]serving.Content) bool {
	if s.unreadable("") {
		return false // what cannot be read is not overwritten; the edit itself does not depend on it
	}
	now, added := time.Now().UTC().Truncate(time.Second), false
	put := func(url serving.EndpointURL, h serving.History) {
		s.Config.Revisions[string(url)], added = h, true
	}
	after := s.contents(false)
	for url, content := range after {
		if s.unreadable(url) {
			continue
		}
		h := s.Config.Revisions[string(url)]
		if was, existed := before[url]; existed && !h.Current(was) && !h.Current(content) {
			h = h.Add(serving.Revision{Content: was, Time: now})
			put(url, h)
		}
		mine := serving.Revision{Content: content, Time: now, By: s.Author.Name, Message: s.Author.Message}
		if url == d.url {
			h.Keep = cmp.Or(s.Author.Keep, h.Keep)
			mine.Of = d.of.Number
			if d.of.State == serving.RevisionGood && d.of.AnswersLike(content) {
				mine.State, mine.Since, mine.ModelURI, mine.ModelSHA256 = serving.RevisionGood, now, d.of.ModelURI, d.of.ModelSHA256
			}
		}
		newest := h.Newest()
		switch {
		case !h.Current(content), url == d.url && newest.State == serving.RevisionRefused:
			put(url, h.Add(mine))
		case url == d.url && newest.By == "" && now.Sub(newest.Time) < adoptWithin && s.Author.Name != "":
			// An instance has seen, and maybe served, the new code before this edit of its record.
			newest.By, newest.Message, newest.Of = mine.By, mine.Message, mine.Of
			h.Revisions = append(slices.Clone(h.Revisions[:len(h.Revisions)-1]), newest)
			put(url, h)
		case h.Keep != s.Config.Revisions[string(url)].Keep:
			put(url, h)
		}
	}
	for key, h := range s.Config.Revisions {
		if h.Removed.IsZero() && !s.configured(key, h.Newest()) {
			h.Removed = now
			put(serving.EndpointURL(key), h)
		}
	}
	if added {
		s.Config.PruneRevisions()
	}
	return added
}

// unreadable reports whether the history of a URL, or for "" the whole section, cannot be read: a newer
// version may have written it.
func (s *Service) unreadable(url serving.EndpointURL) bool {
	return slices.ContainsFunc(s.Config.BrokenIn(serving.SectionRevisions), func(b serving.BrokenRecord) bool { return serving.CleanURL(b.Key) == url })
}

// adoptWithin is the longest time between the upload of code and the edit of its record.
const adoptWithin = time.Minute

// configured tells whether there is, or may be, a record that serves the URL of a history.
func (s *Service) configured(key string, newest serving.Revision) bool {
	if newest.Rule > 0 { // of a monitoring's version
		key = newest.Endpoint.ServingURL
	}
	_, static := serving.LookUp(s.Config.Endpoints, key)
	_, monitored := serving.LookUp(s.Config.Monitoring, key)
	return static || monitored || slices.ContainsFunc(s.Config.Broken, func(b serving.BrokenRecord) bool {
		return deploys(b.Section) && (b.Key == "" || serving.CleanURL(b.Key) == serving.CleanURL(key))
	})
}

// History is the revisions of a URL, which may be removed by now. The state of a
// monitoring's revision is that of the versions that it made.
func (s *Service) History(url string) (serving.History, error) {
	clean := string(serving.CleanURL(url))
	h, ok := s.Config.Revisions[clean]
	if !ok || len(h.Revisions) == 0 {
		return h, fmt.Errorf("endpoint '%s' has no revisions: %w", clean, serving.ErrNotFound)
	}
	h.Revisions = slices.Clone(h.Revisions)
	for i, r := range h.Revisions {
		if r.Monitoring != nil {
			h.Revisions[i] = s.ofVersions(clean, r)
		}
	}
	return h, nil
}

// ofVersions completes a monitoring's revision by what became of its versions: good if one
// of them is, else refused if one of them is.
func (s *Service) ofVersions(base string, r serving.Revision) serving.Revision {
	for _, key := range slices.Sorted(maps.Keys(s.Config.Revisions)) {
		if !strings.HasPrefix(key, base+"/") {
			continue
		}
		for _, v := range s.Config.Revisions[key].Revisions {
			if v.Rule == r.Number && (v.State == serving.RevisionGood || (v.State == serving.RevisionRefused && r.State != serving.RevisionGood)) {
				r.State, r.Since, r.Step, r.Reason, r.Instance = v.State, v.Since, v.Step, v.Reason, v.Instance
			}
		}
	}
	return r
}

// Revision is the revision of that number, 0 for the newest one.
func (s *Service) Revision(url string, number int) (serving.Revision, error) {
	h, err := s.History(url)
	if err != nil || number == 0 {
		return h.Newest(), err
	}
	r, ok := h.Revision(number)
	if !ok {
		return r, fmt.Errorf("endpoint '%s' has no revision %d (it has %d to %d): %w", serving.CleanURL(url), number, h.Revisions[0].Number, h.Newest().Number, serving.ErrNotFound)
	}
	return r, nil
}

// ErrNothingToRollBack says that a rollback would change nothing.
var ErrNothingToRollBack = errors.New("there is nothing to roll back to")

// Rollback brings back an earlier revision as a new one: the one of that number, or for
// 0 the last good one whose content differs from the newest revision. Nothing is
// uploaded. Golden samples stay as they are. It returns the new revision.
func (s *Service) Rollback(ctx context.Context, url string, number int) (serving.Revision, error) {
	clean := serving.CleanURL(url)
	h, err := s.History(url)
	if err != nil {
		return serving.Revision{}, err
	}
	if newest := h.Newest(); newest.Rule > 0 {
		return newest, fmt.Errorf("'%s' is a version of the auto-updated endpoint '%s': roll that one back: %w", clean, serving.CleanURL(newest.Endpoint.ServingURL), ErrNothingToRollBack)
	}
	var to serving.Revision
	if number == 0 {
		found := false
		if to, found = h.Back(); !h.Removed.IsZero() {
			to, found = h.LastGood()
		}
		if !found {
			return to, fmt.Errorf("endpoint '%s': no earlier revision was good: %w", clean, ErrNothingToRollBack)
		}
	} else if to, err = s.Revision(url, number); err != nil {
		return to, err
	}
	if newest := h.Newest(); h.Removed.IsZero() && newest.State != serving.RevisionRefused && newest.AnswersLike(to.Content) {
		return to, fmt.Errorf("endpoint '%s': what revision %d deploys is in force already: %w", clean, to.Number, ErrNothingToRollBack)
	}
	if err := s.bringBack(ctx, clean, to); err != nil {
		return to, err
	}
	return s.Revision(url, 0)
}

// bringBack stores the content of an earlier revision. If only the code differs, the
// artifact's address is what changes; else the record changes together with the name of
// its artifact, so that no instance runs the code of one with the settings of another.
func (s *Service) bringBack(ctx context.Context, url serving.EndpointURL, to serving.Revision) error {
	artifact := ""
	if to.Code != nil {
		artifact = s.ArtifactName(string(url), cmp.Or(to.Code.SHA256, "unknown"), func(stored string) bool { return s.differsApartFromCode(url, stored, to.Content) })
		if err := s.RegisterCode(ctx, artifact, s.codeArtifact(*to.Code)); err != nil {
			return err
		}
	}
	err := s.edit(ctx, deployment{url, to}, func(c *serving.Service) ([]serving.Section, error) {
		sections := []serving.Section{serving.SectionEndpoints, serving.SectionOptions}
		var err error
		if to.Monitoring != nil {
			m := *to.Monitoring
			m.PreprocessArtifact, sections[0] = artifact, serving.SectionMonitoring
			_, err = c.AddMonitoring(m)
		} else {
			e := to.Endpoint
			e.PreprocessArtifact = artifact
			_, err = c.AddEndpoint(e)
		}
		if err != nil {
			return nil, err
		}
		return sections, c.SetOptions(string(url), func(o *serving.EndpointOptions) { o.Limits = to.Limits })
	})
	if err != nil || to.Monitoring != nil {
		return err
	}
	return s.linkModel(ctx, to.Endpoint)
}

// differsApartFromCode tells whether the present record, if it uses the artifact, differs from
// a content in more than its code.
func (s *Service) differsApartFromCode(url serving.EndpointURL, artifact string, to serving.Content) bool {
	now, ok := s.contents(false)[url]
	if !ok || (now.Endpoint.PreprocessArtifact != artifact && (now.Monitoring == nil || now.Monitoring.PreprocessArtifact != artifact)) {
		return false
	}
	now.Code, now.ModelURI = to.Code, ""
	return !now.AnswersLike(to)
}
