package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"clearmlserving/clearml"
	"clearmlserving/operations"
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
		return a.packFolder(ctx, path, full, false)
	}
	if info.Size() == 0 {
		return code{}, fmt.Errorf("preprocessing code '%s' is empty: it needs a class Preprocess", path)
	}
	sum, err := storage.HashFile(ctx, full)
	if err != nil {
		return code{}, fmt.Errorf("preprocessing code '%s': %w", path, err)
	}
	return code{file: full, name: filepath.Base(full), kind: "custom", sha256: sum, size: info.Size(), remove: func() {}}, nil
}

// packFolder makes a zip of a folder, the same bytes for the same content. path is the folder as
// the user names it. A link to nothing is an error if the folder must be whole.
func (a *app) packFolder(ctx context.Context, path, folder string, whole bool) (code, error) {
	temp, err := os.MkdirTemp("", "clearml-serving-")
	if err != nil {
		return code{}, fmt.Errorf("pack folder '%s': %w", folder, err)
	}
	remove := func() { _ = os.RemoveAll(temp) } // the system clears its temporary folder in the end
	file := filepath.Join(temp, "code.zip")
	packed, err := storage.Pack(ctx, folder, file)
	if err != nil {
		remove()
		return code{}, fmt.Errorf("pack folder '%s': %w", folder, err)
	}
	for _, l := range packed.LeftOut {
		if l.Broken && whole { // as the SDK: a model that lacks a file is none
			remove()
			return code{}, hint(fmt.Errorf("upload '%s': '%s' is %s, so the model would lack it", path, l.Name, l.Why), "Try: complete the download, or remove the link")
		}
		a.print.notice("Warning: '%s' is not packed: it is %s", filepath.Join(path, l.Name), l.Why)
	}
	return code{file: file, name: filepath.Base(folder) + ".zip", kind: "archive", sha256: packed.SHA256, size: packed.Size, remove: remove}, nil
}

// storeCode stores what --preprocess names as an artifact of the service for a url.
func (a *app) storeCode(ctx context.Context, s *operations.Service, url, path string, keepApart func(artifact string) bool) (artifact string, err error) {
	c, err := a.packCode(ctx, path)
	if err != nil {
		return "", err
	}
	defer c.remove()
	stored := clearml.Artifact{Type: c.kind, Hash: c.sha256, Size: c.size}
	return s.StoreCode(ctx, url, stored, c.name, keepApart, func(object string) (string, error) {
		to, err := a.openDestination(s.Client, s.Client.FilesURL())
		if err != nil {
			return "", err
		}
		return a.uploadFile(ctx, to, object, c.file)
	})
}

// putEndpoint stores an endpoint and its code, "" for none, in place of what the url has.
func (a *app) putEndpoint(ctx context.Context, s *operations.Service, e *serving.Endpoint, code string) error {
	before, replaced := serving.LookUp(s.Config.Endpoints, string(e.URL()))
	if code != "" {
		var err error
		e.PreprocessArtifact, err = a.storeCode(ctx, s, string(e.URL()), code, func(stored string) bool {
			return replaced && before.PreprocessArtifact == stored && !operations.SameApartFromCode(before, *e)
		})
		if err != nil {
			return err
		}
	}
	a.print.line("Updating serving service")
	if err := s.AddEndpoint(ctx, *e); err != nil {
		return err
	}
	a.dropUnusedCode(ctx, s, before.PreprocessArtifact)
	return nil
}

// dropUnusedCode takes an artifact off the service when no record refers to it, and removes the
// files of revisions that are kept no longer.
func (a *app) dropUnusedCode(ctx context.Context, s *operations.Service, name string) {
	if err := errors.Join(s.DropUnusedCode(ctx, name), s.PruneFiles(ctx)); err != nil {
		a.print.notice("Warning: %v", err)
	}
}
