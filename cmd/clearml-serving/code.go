package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/serving"
	"clearmlserving/storage"
)

// code is preprocess code, packed and ready to be uploaded.
type code struct {
	file   string // on this machine
	name   string // of the stored file: preprocess.py, or <folder>.zip
	kind   string // artifact type, as the SDK calls it: custom for a file, archive for a folder
	sha256 string
	size   int64
	remove func() // of what was packed; never nil
}

// packCode makes one file of what --preprocess names.
func (a *app) packCode(ctx context.Context, path string) (code, error) {
	info, err := os.Stat(path)
	if err != nil {
		return code{}, notFound("Preprocessing code '%s' could not be found", path)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return code{}, fmt.Errorf("preprocessing code '%s': %w", path, err)
	}
	if info.IsDir() {
		packed, left, err := packFolder(ctx, full)
		for _, l := range left {
			a.print.notice("Warning: '%s' is not packed: it is %s", filepath.Join(path, l.Name), l.Why)
		}
		return packed, err
	}
	sum, size, err := hashFile(full)
	if err != nil {
		return code{}, fmt.Errorf("preprocessing code '%s': %w", path, err)
	}
	if size == 0 {
		return code{}, fmt.Errorf("preprocessing code '%s' is empty: it needs a class Preprocess", path)
	}
	return code{file: full, name: filepath.Base(full), kind: "custom", sha256: sum, size: size, remove: func() {}}, nil
}

// packFolder makes a zip of a folder, the same bytes for the same content.
func packFolder(ctx context.Context, folder string) (code, []storage.LeftOut, error) {
	temp, err := os.MkdirTemp("", "clearml-serving-")
	if err != nil {
		return code{}, nil, fmt.Errorf("pack folder '%s': %w", folder, err)
	}
	remove := func() { _ = os.RemoveAll(temp) } // the system clears its temporary folder in the end
	name := filepath.Base(folder) + ".zip"
	file := filepath.Join(temp, "code.zip")
	packed, err := storage.Pack(ctx, folder, file)
	if err != nil {
		remove()
		return code{}, nil, fmt.Errorf("pack folder '%s': %w", folder, err)
	}
	return code{file: file, name: name, kind: "archive", sha256: packed.SHA256, size: packed.Size, remove: remove}, packed.LeftOut, nil
}

func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close() //nolint:errcheck // only read from
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// artifactName chooses the artifact for the code of a url: the original's name
// while it is free. The original gives "a/b" and "a_b" the same name, so that
// one loses its code; ours adds a piece of the code's hash instead. In the same
// way, an endpoint whose code changes together with something else gets a new
// artifact (keep apart says so): the record then switches both at one moment.
func (s *service) artifactName(url, sha256 string, keepApart func(artifact string) bool) string {
	name := "py_code_" + strings.ReplaceAll(url, "/", "_")
	takenByOther := false
	for key, e := range s.config.Endpoints {
		takenByOther = takenByOther || (e.PreprocessArtifact == name && string(serving.CleanURL(key)) != url)
	}
	for key, m := range s.config.Monitoring {
		takenByOther = takenByOther || (m.PreprocessArtifact == name && string(serving.CleanURL(key)) != url)
	}
	sameCode := s.doc.Artifacts[name].Hash == sha256
	if !takenByOther && (sameCode || !keepApart(name)) {
		return name
	}
	return name + "_" + sha256[:8]
}

// artifactUsed tells whether a record refers to the artifact.
func (s *service) artifactUsed(name string) bool {
	for _, e := range s.config.Endpoints {
		if e.PreprocessArtifact == name {
			return true
		}
	}
	for _, m := range s.config.Monitoring {
		if m.PreprocessArtifact == name {
			return true
		}
	}
	for _, e := range s.config.MonitoringEndpoints {
		if e.PreprocessArtifact == name {
			return true
		}
	}
	return len(s.config.Broken) > 0 // what cannot be read may refer to it
}

// uploadCode stores packed code as an artifact of the service.
func (a *app) uploadCode(ctx context.Context, s *service, name string, c code) error {
	stored, there := s.doc.Artifacts[name]
	if there && stored.Hash == c.sha256 {
		return nil
	}
	object := path.Join(s.doc.StoragePath(), "artifacts", name, c.name)
	if there {
		// Instances may be reading the old file under the old address.
		object = path.Join(s.doc.StoragePath(), "artifacts", name, c.sha256[:12], c.name)
	}
	uri, err := a.uploadFile(ctx, s.client, s.client.FilesURL(), object, c.file)
	if err != nil {
		return err
	}
	if err := s.client.SetArtifact(ctx, s.doc.ID, clearml.Artifact{Key: name, Type: c.kind, URI: uri, Hash: c.sha256, Size: c.size}); err != nil {
		return fmt.Errorf("enter the preprocess code on the serving service: %w", err)
	}
	return nil
}

// dropUnusedCode takes an artifact off the service when no record refers to it
// any more. Its file stays: an instance may still be reading it.
func (a *app) dropUnusedCode(ctx context.Context, s *service, name string) {
	if name == "" || s.artifactUsed(name) {
		return
	}
	if err := s.client.DeleteArtifact(ctx, s.doc.ID, name); err != nil {
		a.print.notice("Warning: artifact %s is no longer used but could not be removed: %v", name, err)
		return
	}
	delete(s.doc.Artifacts, name)
}
