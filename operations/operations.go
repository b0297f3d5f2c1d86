// Package operations holds what is done to a stored serving service: read it, edit it
// next to other writers, and keep its models and code artifacts in step with its
// endpoints. The command line and the web pages both work through it, so that an edit
// means the same from either. It owns no connection and prints nothing.
package operations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// Service is a serving service as it was read last.
type Service struct {
	Client *clearml.Client
	Doc    *clearml.Service
	Config serving.Service
	// Author makes the edits; revisions name it.
	Author Author
	// Since is the age of the document on which what has been written here last was based: the state of an instance
	// that has read an older one is from before. Zero: nothing has been written.
	Since time.Time

	replaced map[string]clearml.Artifact // the artifacts that RegisterCode has replaced
}

// Open reads a service.
func Open(ctx context.Context, client *clearml.Client, id string) (*Service, error) {
	doc, err := client.LoadService(ctx, id)
	if err != nil {
		return nil, err
	}
	return Of(client, doc), nil
}

// Of is the service of a document that has been read.
func Of(client *clearml.Client, doc *clearml.Service) *Service {
	return &Service{Client: client, Doc: doc, Config: doc.Configuration().Decode()}
}

// Reload reads the service as it is stored now.
func (s *Service) Reload(ctx context.Context) error {
	doc, err := s.Client.LoadService(ctx, s.Doc.ID)
	if err != nil {
		return err
	}
	if doc.Changed.Before(s.Since) { // the server's clock was set back
		s.Since = doc.Changed
	}
	s.Doc, s.Config = doc, doc.Configuration().Decode()
	return nil
}

// Hash is the change marker of the service as it was read.
func (s *Service) Hash() string { return s.Config.StateHash(s.artifactHashes()) }

// Digests are the change markers of the single urls.
func (s *Service) Digests() map[serving.EndpointURL]string {
	return s.Config.Digests(s.artifactHashes())
}

func (s *Service) artifactHashes() map[string]string {
	hashes := make(map[string]string, len(s.Doc.Artifacts))
	for name, artifact := range s.Doc.Artifacts {
		hashes[name] = artifact.Hash
	}
	return hashes
}

// maxConflicts bounds how often an edit is repeated after a conflict.
const maxConflicts = 20

// Edit changes one section, stores it, and reads the service again. After a conflict
// with another writer the change is repeated on what is stored by then, so nothing is
// lost. A section that would not differ is not written. The version of the service is
// set to ours. change may be called several times and must have no effect but on its
// argument.
//
// Each URL whose endpoint, code or settings differ from its newest revision gets a new
// revision by s.Author, in the same write.
func (s *Service) Edit(ctx context.Context, change func(*serving.Service) (serving.Section, error)) error {
	return s.edit(ctx, deployment{}, func(c *serving.Service) ([]serving.Section, error) {
		section, err := change(c)
		return []serving.Section{section}, err
	})
}

// edit is Edit for several sections at one moment; d is what it deploys.
func (s *Service) edit(ctx context.Context, d deployment, change func(*serving.Service) ([]serving.Section, error)) error {
	for attempt := 1; ; attempt++ {
		before := s.contents(true)
		sections, err := change(&s.Config)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(sections, deploys) && s.record(d, before) {
			sections = append(sections, serving.SectionRevisions)
		}
		texts, err := s.differing(sections)
		if err != nil {
			return err
		}
		// An instance that stores what it knows of revisions edits nothing for a user.
		versioned := s.Doc.Version == clearml.ServiceVersion || slices.Equal(sections, []serving.Section{serving.SectionRevisions}) || s.Author.Name == serving.CanaryAnalysis
		if len(texts) == 0 && versioned {
			return nil
		}
		if len(texts) > 0 {
			err = s.Client.SaveSections(ctx, s.Doc, texts)
			switch {
			case errors.Is(err, clearml.ErrConflict) && attempt == maxConflicts:
				return fmt.Errorf("store the change: other writers were faster %d times: %w", attempt, err)
			case errors.Is(err, clearml.ErrConflict):
				if err := s.Reload(ctx); err != nil {
					return err
				}
				continue
			case err != nil:
				return fmt.Errorf("store section %q of serving service %s: %w", sections[0], s.Doc.ID, err)
			}
			s.Since = s.Doc.Changed
		}
		if !versioned {
			if err := s.Client.SetServiceVersion(ctx, s.Doc.ID, clearml.ServiceVersion); err != nil {
				return fmt.Errorf("store the version of serving service %s: %w", s.Doc.ID, err)
			}
		}
		return s.Reload(ctx)
	}
}

// differing encodes the sections of Config that differ from what is stored, and makes
// Config what is stored again.
func (s *Service) differing(sections []serving.Section) (map[serving.Section]string, error) {
	changed := s.Config
	s.Config = s.Doc.Configuration().Decode()
	texts := map[serving.Section]string{}
	for _, section := range sections {
		text, err := changed.Encode(section)
		if err != nil {
			return nil, err
		}
		if stored, err := s.Config.Encode(section); err != nil || stored != text {
			texts[section] = text
		}
	}
	return texts, nil
}

// SetParameter stores a setting of the service; kind is its Python type.
func (s *Service) SetParameter(ctx context.Context, name, value, kind string) error {
	if err := s.Client.SetServiceParameter(ctx, s.Doc.ID, name, value, kind); err != nil {
		return fmt.Errorf("store setting %s of serving service %s: %w", name, s.Doc.ID, err)
	}
	if s.Doc.General[name] != value {
		s.Since = s.Doc.Changed
	}
	return s.Reload(ctx)
}
