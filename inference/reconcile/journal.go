package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
	"clearmlserving/storage"
)

// ClearMLJournal stores revisions on the service's task.
type ClearMLJournal struct {
	Client *clearml.Client
	Files  Files
	Logger *slog.Logger
}

// Record implements Journal.
func (c *ClearMLJournal) Record(ctx context.Context, serviceID string, histories map[serving.EndpointURL]serving.History) error {
	s, err := operations.Open(ctx, c.Client, serviceID)
	if err != nil {
		return err
	}
	err = s.Learn(ctx, histories, func(artifact string, code serving.ModelCode) *clearml.Artifact {
		kept, err := c.keep(ctx, s, artifact, code)
		if err != nil {
			c.Logger.Warn("code of a revision cannot be copied, a rollback to it may fail", "code", storage.Redact(code.URI), "err", err)
			return nil
		}
		return kept
	})
	if err != nil {
		return err
	}
	if err := s.PruneFiles(ctx); err != nil {
		c.Logger.Warn("files of old revisions not removed", "err", err)
	}
	return nil
}

// keep copies code that another program has uploaded.
func (c *ClearMLJournal) keep(ctx context.Context, s *operations.Service, artifact string, code serving.ModelCode) (*clearml.Artifact, error) {
	local, err := c.Files.Fetch(ctx, File{URL: code.URI, SHA256: code.SHA256})
	if err != nil {
		return nil, err
	}
	defer local.Release()
	f, err := os.Open(local.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	name := path.Base(code.URI)
	if decoded, err := url.PathUnescape(name); err == nil && path.Base(decoded) == decoded {
		name = decoded
	}
	uri, err := c.Client.Upload(ctx, c.Client.FilesURL(), s.CodePath(artifact, code.SHA256, name), f, info.Size(), nil)
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	kind := "custom"
	if code.Folder {
		kind = "archive"
	}
	return &clearml.Artifact{Type: kind, URI: uri, Hash: code.SHA256, Size: info.Size()}, nil
}
