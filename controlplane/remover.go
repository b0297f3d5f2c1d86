package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"clearmlserving/controlplane/files"
	"clearmlserving/storage"
)

// remover removes the files of what is deleted: on this installation's file server, and in
// the buckets that its operator has configured by name. A model's address is whatever a
// user has written, so everything else is left alone: files of this machine, other web
// servers, and what the machine's own rights would reach.
type remover struct {
	files  *files.Server
	own    []string // addresses of the file server, each with its slash at the end
	root   string   // where the file server keeps its files, if in a bucket, with its slash
	places storage.Adapters
}

var errElsewhere = errors.New("it lies neither on this file server nor in a bucket that is configured by name in this server's clearml.conf: delete it where it lies")

// RemoveFile implements api.Files.
func (r *remover) RemoveFile(ctx context.Context, address string) error {
	for _, own := range r.own {
		if path, ok := strings.CutPrefix(address, own); ok {
			raw, err := url.PathUnescape(path)
			if err != nil {
				return fmt.Errorf("the address is not quoted correctly: %w", err)
			}
			return r.files.Remove(ctx, "/"+raw)
		}
	}
	if !storage.PlainKey(address) {
		return errElsewhere
	}
	place, err := r.places.For(address)
	if err != nil {
		return errElsewhere
	}
	named, can := place.(storage.Named)
	below := r.root != "" && strings.HasPrefix(address, r.root)
	if !below && (!can || !named.Named(address)) {
		return errElsewhere
	}
	err = storage.Backoff{Attempts: 3}.Do(ctx, func() error { return place.Delete(ctx, address) })
	if errors.Is(err, storage.ErrNotExist) {
		return nil
	}
	return err
}
