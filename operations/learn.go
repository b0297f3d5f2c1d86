package operations

import (
	"context"
	"fmt"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// Learn adds to the stored revisions what an instance knows beyond them. Code that lies at
// a place which another upload would overwrite is copied first: keep stores the file under a
// path that holds its hash, and says nothing if it cannot; the revision then refers to the
// place as it is.
func (s *Service) Learn(ctx context.Context, known map[serving.EndpointURL]serving.History, keep func(artifact string, code serving.ModelCode) *clearml.Artifact) error {
	places := map[string]string{} // hash -> where the code is kept
	for url, h := range known {
		merged, _ := s.Config.Revisions[string(url)].Merge(h)
		for _, r := range merged.Revisions {
			if r.Code == nil || r.Code.SHA256 == "" || fixed(*r.Code) || places[r.Code.SHA256] != "" {
				continue
			}
			stored, ok := s.StoredCode(r.Code.SHA256)
			if !ok {
				made := keep(clearml.PreprocessArtifact(url), *r.Code)
				if made == nil {
					continue
				}
				stored = *made
				stored.Key = revisionArtifact(stored.Hash)
				if err := s.Client.SetArtifact(ctx, s.Doc.ID, stored); err != nil {
					return fmt.Errorf("register the code of revisions: %w", err)
				}
				s.Doc.Artifacts[stored.Key] = stored
			}
			places[r.Code.SHA256] = stored.URI
		}
	}
	return s.edit(ctx, deployment{}, func(c *serving.Service) ([]serving.Section, error) {
		for url, h := range known {
			if s.unreadable(url) {
				continue
			}
			merged, changed := c.Revisions[string(url)].Merge(h)
			if !changed {
				continue
			}
			for i, r := range merged.Revisions {
				if r.Code != nil && places[r.Code.SHA256] != "" && !fixed(*r.Code) {
					code := *r.Code
					code.URI = places[code.SHA256]
					merged.Revisions[i].Code = &code
				}
			}
			c.Revisions[string(url)] = merged
		}
		c.PruneRevisions()
		return []serving.Section{serving.SectionRevisions}, nil
	})
}

// fixed tells whether the place of code holds its hash, so that no other code is ever stored there.
func fixed(code serving.ModelCode) bool {
	return len(code.SHA256) >= 12 && strings.Contains(code.URI, "/"+code.SHA256[:12]+"/")
}
