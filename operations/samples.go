package operations

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// StoreSamples stores golden samples as an artifact of the service. Its name holds a part of their
// hash, so that samples and tolerance change at one moment.
func (s *Service) StoreSamples(ctx context.Context, endpoint string, data []byte) (artifact string, err error) {
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	name := "golden_" + strings.ReplaceAll(string(serving.CleanURL(endpoint)), "/", "_") + "_" + hash[:8]
	if s.Doc.Artifacts[name].Hash == hash {
		return name, nil
	}
	object := path.Join(s.Doc.StoragePath(), "artifacts", clearml.ArtifactFolder(name), "samples.jsonl")
	uri, err := s.Client.Upload(ctx, s.Client.FilesURL(), object, bytes.NewReader(data), int64(len(data)), nil)
	if err != nil {
		return "", fmt.Errorf("upload golden samples to %s: %w", s.Client.FilesURL(), err)
	}
	if err := s.Client.SetArtifact(ctx, s.Doc.ID, clearml.Artifact{Key: name, Type: "custom", URI: uri, Hash: hash, Size: int64(len(data))}); err != nil {
		return "", fmt.Errorf("register the golden samples on the serving service: %w", err)
	}
	return name, nil
}

// DropUnusedSamples takes an artifact off the service when no endpoint's options name it.
func (s *Service) DropUnusedSamples(ctx context.Context, name string) error {
	for _, o := range s.Config.Options {
		if o.Golden != nil && o.Golden.Artifact == name {
			return nil
		}
	}
	if len(s.Config.BrokenIn(serving.SectionOptions)) > 0 {
		return nil // what cannot be read may name it
	}
	if err := s.Client.DeleteArtifact(ctx, s.Doc.ID, name); err != nil {
		return fmt.Errorf("artifact %s is no longer used but could not be removed: %w", name, err)
	}
	return nil
}
