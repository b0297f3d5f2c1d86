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

	"clearmlserving/clearml"
	"clearmlserving/operations"
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

// uploadCode stores packed code as an artifact of the service.
func (a *app) uploadCode(ctx context.Context, s *operations.Service, name string, c code) error {
	stored, there := s.Doc.Artifacts[name]
	if there && stored.Hash == c.sha256 {
		return nil
	}
	object := path.Join(s.Doc.StoragePath(), "artifacts", name, c.name)
	if there {
		// Instances may be reading the old file under the old address.
		object = path.Join(s.Doc.StoragePath(), "artifacts", name, c.sha256[:12], c.name)
	}
	to, err := a.openDestination(s.Client, s.Client.FilesURL())
	if err != nil {
		return err
	}
	uri, err := a.uploadFile(ctx, to, object, c.file)
	if err != nil {
		return err
	}
	if err := s.Client.SetArtifact(ctx, s.Doc.ID, clearml.Artifact{Key: name, Type: c.kind, URI: uri, Hash: c.sha256, Size: c.size}); err != nil {
		return fmt.Errorf("register the preprocess code on the serving service: %w", err)
	}
	return nil
}

// dropUnusedCode takes an artifact off the service when no record refers to it.
func (a *app) dropUnusedCode(ctx context.Context, s *operations.Service, name string) {
	if err := s.DropUnusedCode(ctx, name); err != nil {
		a.print.notice("Warning: %v", err)
	}
}
