package operations

import (
	"context"
	"fmt"

	"clearmlserving/clearml"
	"clearmlserving/serving"
)

// ArtifactName chooses the artifact for the code of a url: the original's name while
// it is free. The original gives "a/b" and "a_b" the same name, so that one of them
// loses its code; ours adds a part of the code's hash instead. An endpoint whose code
// changes together with something else gets a new artifact as well (keepApart says
// so): its record then switches both at one moment.
func (s *Service) ArtifactName(url, sha256 string, keepApart func(artifact string) bool) string {
	name := clearml.PreprocessArtifact(serving.EndpointURL(url))
	takenByOther := false
	for key, e := range s.Config.Endpoints {
		takenByOther = takenByOther || (e.PreprocessArtifact == name && string(serving.CleanURL(key)) != url)
	}
	for key, m := range s.Config.Monitoring {
		takenByOther = takenByOther || (m.PreprocessArtifact == name && string(serving.CleanURL(key)) != url)
	}
	sameCode := s.Doc.Artifacts[name].Hash == sha256
	if !takenByOther && (sameCode || !keepApart(name)) {
		return name
	}
	return name + "_" + sha256[:8]
}

// DropUnusedCode takes a code artifact off the service when no record refers to it.
// Its file stays: an instance may still be reading it.
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
