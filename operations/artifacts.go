package operations

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// ArtifactName chooses the artifact for the code of a url: the original's name while
// it is free. The original gives "a/b" and "a_b" the same name, so that one of them
// loses its code; ours adds a part of the code's hash instead. An endpoint whose code
// changes together with something else gets a new artifact as well (keepApart says
// so): its record then switches both at one moment.
func (s *Service) ArtifactName(url, hash string, keepApart func(artifact string) bool) string {
	name := clearml.PreprocessArtifact(serving.EndpointURL(url))
	takenByOther := false
	for key, e := range s.Config.Endpoints {
		takenByOther = takenByOther || (e.PreprocessArtifact == name && string(serving.CleanURL(key)) != url)
	}
	for key, m := range s.Config.Monitoring {
		takenByOther = takenByOther || (m.PreprocessArtifact == name && string(serving.CleanURL(key)) != url)
	}
	sameCode := s.Doc.Artifacts[name].Hash == hash
	if !takenByOther && (sameCode || !keepApart(name)) {
		return name
	}
	return name + "_" + hash[:min(8, len(hash))]
}

// revisionPrefix begins the names of the artifacts that keep the code of revisions. Each has
// one file, named by its hash, so that all files of a service are artifacts of its task:
// what deletes the task finds them.
const revisionPrefix = "revision_"

func revisionArtifact(hash string) string { return revisionPrefix + hash[:min(16, len(hash))] }

// CodePath is where code with that hash is stored below a destination. It holds the hash, so
// that no upload ever changes a file that a revision refers to.
func (s *Service) CodePath(artifact, hash, fileName string) string {
	return path.Join(s.Doc.StoragePath(), "artifacts", clearml.ArtifactFolder(artifact), hash[:min(12, len(hash))], fileName)
}

// StoredCode is the file that code with that hash has been stored as, if it has.
func (s *Service) StoredCode(hash string) (clearml.Artifact, bool) {
	a, ok := s.Doc.Artifacts[revisionArtifact(hash)]
	return a, ok && a.Hash == hash
}

// StoreCode makes code an artifact of the service for a url, and returns the artifact's name.
// upload brings the file below a destination; it is not called if the file is stored already,
// because revisions refer to it.
func (s *Service) StoreCode(ctx context.Context, url string, code clearml.Artifact, fileName string, keepApart func(artifact string) bool, upload func(object string) (uri string, err error)) (name string, err error) {
	name = s.ArtifactName(url, code.Hash, keepApart)
	stored, there := s.StoredCode(code.Hash)
	if !there {
		stored = code
		if stored.URI, err = upload(s.CodePath(name, code.Hash, fileName)); err != nil {
			return "", err
		}
	}
	return name, s.RegisterCode(ctx, name, stored)
}

// RegisterCode makes an artifact refer to stored code, and keeps the file for the
// revisions that use it.
func (s *Service) RegisterCode(ctx context.Context, name string, code clearml.Artifact) error {
	entries := []clearml.Artifact{}
	for _, key := range []string{revisionArtifact(code.Hash), name} {
		if now, ok := s.Doc.Artifacts[key]; !ok || now.Hash != code.Hash || now.URI != code.URI {
			code.Key = key
			entries = append(entries, code)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	if err := s.Client.SetArtifact(ctx, s.Doc.ID, entries...); err != nil {
		return fmt.Errorf("register the preprocess code on the serving service: %w", err)
	}
	s.Since = s.Doc.Changed
	if s.replaced == nil {
		s.replaced = map[string]clearml.Artifact{}
	}
	if _, known := s.replaced[name]; !known {
		s.replaced[name] = s.Doc.Artifacts[name]
	}
	for _, entry := range entries {
		s.Doc.Artifacts[entry.Key] = entry
	}
	return nil
}

// codeArtifact is the artifact of a revision's code.
func (s *Service) codeArtifact(code serving.ModelCode) clearml.Artifact {
	a, _ := s.StoredCode(code.SHA256)
	a.URI, a.Hash, a.Type, a.Timestamp = code.URI, code.SHA256, "custom", 0
	if code.Folder {
		a.Type = "archive"
	}
	return a
}

// DropUnusedCode takes a code artifact off the service when no record refers to it.
// Its file stays while a revision refers to it.
func (s *Service) DropUnusedCode(ctx context.Context, name string) error {
	if name == "" || s.artifactUsed(name) {
		return nil
	}
	if err := s.Client.DeleteArtifact(ctx, s.Doc.ID, name); err != nil {
		return fmt.Errorf("artifact %s is no longer used but could not be removed: %w", name, err)
	}
	delete(s.Doc.Artifacts, name)
	return nil
}

// PruneFiles removes the files of revisions that are no longer kept: from the artifacts of the
// service, and from the service's own folder of the file server. Files at other places stay, whatever
// an artifact says.
func (s *Service) PruneFiles(ctx context.Context) error {
	if len(s.Config.Broken) > 0 {
		return nil // what cannot be read may refer to one of them
	}
	used := map[string]bool{}
	for _, h := range s.Config.Revisions {
		for _, r := range h.Revisions {
			if r.Code != nil {
				used[r.Code.SHA256] = true
			}
		}
	}
	for name, a := range s.Doc.Artifacts {
		if !strings.HasPrefix(name, revisionPrefix) {
			used[a.Hash] = true
		}
	}
	own := clearml.FileURL(s.Client.FilesURL(), path.Join(s.Doc.StoragePath(), "artifacts")) + "/"
	var failed error
	for _, name := range slices.Sorted(maps.Keys(s.Doc.Artifacts)) {
		a := s.Doc.Artifacts[name]
		if !strings.HasPrefix(name, revisionPrefix) || used[a.Hash] {
			continue
		}
		err := s.Client.DeleteArtifact(ctx, s.Doc.ID, name)
		if err == nil && strings.HasPrefix(a.URI, own) && fixed(*CodeOf(a)) {
			if err = s.Client.DeleteFile(ctx, a.URI); errors.Is(err, clearml.ErrNotFound) {
				err = nil
			}
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("the code of a revision that is no longer kept, %s, could not be removed: %w", name, err))
			continue
		}
		delete(s.Doc.Artifacts, name)
	}
	return failed
}

// artifactUsed tells whether a record refers to the artifact.
func (s *Service) artifactUsed(name string) bool {
	for _, e := range s.Config.Endpoints {
		if e.PreprocessArtifact == name {
			return true
		}
	}
	for _, m := range s.Config.Monitoring {
		if m.PreprocessArtifact == name {
			return true
		}
	}
	for _, e := range s.Config.MonitoringEndpoints {
		if e.PreprocessArtifact == name {
			return true
		}
	}
	return len(s.Config.Broken) > 0 // an unreadable record may refer to it
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
