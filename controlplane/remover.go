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

// remover removes the files of deleted documents: on this installation's file server, and in
// the buckets that its operator has configured by name. Users choose the address of a
// model, so other files are never removed: those of this machine, of other web servers, and
// of places that the machine's own rights would reach.
type remover struct {
	files  *files.Server
	own    []string // addresses of the file server, with a slash at the end
	root   string   // the bucket of the file server, if any, with a slash at the end
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
