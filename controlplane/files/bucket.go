package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"clearmlserving/storage"
)

// bucket is a tree in a place of package storage. Files are streamed and not stored on this
// machine: an upload becomes visible at its end.
type bucket struct {
	at   storage.Adapter
	root string // the URL of the root, with its slash
}

func (b *bucket) close() error { return nil }

// find looks up a file; its content is requested when it is read.
func (b *bucket) find(ctx context.Context, name string) (content, error) {
	for _, spelled := range spellings(name) {
		url := b.root + spelled
		object, err := b.stat(ctx, url)
		if errors.Is(err, storage.ErrNotExist) {
			continue
		}
		if err != nil {
			return content{}, err
		}
		r := &remote{ctx: ctx, place: b.at, url: url, object: object}
		return content{ReadSeekCloser: r, modified: object.Modified, tag: object.ETag}, nil
	}
	return content{}, fs.ErrNotExist
}

// spellings are the names under which a file may be stored: see disk.stored.
func spellings(name string) []string {
	if sent := asSent(name); sent != name {
		return []string{name, sent}
	}
	return []string{name}
}

func (b *bucket) stat(ctx context.Context, url string) (object storage.Object, err error) {
	err = patience.Do(ctx, func() error {
		object, err = b.at.Stat(ctx, url)
		return err
	})
	return object, err
}

// patience is short, because a client waits for the answer.
var patience = storage.Backoff{Attempts: 3}

func (b *bucket) receive(ctx context.Context, name string, from io.Reader) (received, error) {
	var size int64
	err := b.at.Put(ctx, b.root+name, from, -1, func(done, _ int64) { size = done })
	if err != nil {
		return received{}, err
	}
	return received{name: name, size: size}, nil
}

// place does nothing: the file is visible since its end was sent.
func (b *bucket) place(context.Context, received) error { return nil }

func (b *bucket) discard([]received) {}

// remove deletes a file, or every file below a folder.
func (b *bucket) remove(ctx context.Context, name string, folders bool) (string, error) {
	for _, spelled := range spellings(name) {
		err := patience.Do(ctx, func() error { return b.at.Delete(ctx, b.root+spelled) })
		if err == nil || !errors.Is(err, storage.ErrNotExist) {
			return spelled, err
		}
	}
	list, can := b.at.(storage.Lister)
	if !folders || !can {
		return "", fs.ErrNotExist
	}
	any := false
	for url, err := range list.List(ctx, b.root+name+"/") {
		if err != nil {
			return "", err
		}
		any = true
		if err := b.at.Delete(ctx, url); err != nil && !errors.Is(err, storage.ErrNotExist) {
			return "", err
		}
	}
	if !any {
		return "", fs.ErrNotExist
	}
	return name, nil
}

// remote reads a file from any offset. The connection is opened by the first Read after a Seek, so
// that a request for the headers needs none; an interrupted connection is resumed.
type remote struct {
	ctx    context.Context //nolint:containedctx // of the request that is being answered; io.Reader has no parameter for it
	place  storage.Adapter
	url    string
	object storage.Object
	at     int64
	open   io.ReadCloser // nil: none
}

func (r *remote) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.object.Size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek to %d", offset)
	}
	if offset != r.at {
		_ = r.Close() // deliberately unread
		r.at = offset
	}
	return offset, nil
}

func (r *remote) Read(p []byte) (int, error) {
	if r.at >= r.object.Size {
		return 0, io.EOF
	}
	for cuts := 0; ; cuts++ {
		if r.open == nil {
			err := patience.Do(r.ctx, func() (err error) {
				r.open, _, err = r.place.Open(r.ctx, r.url, storage.Part{Offset: r.at, Of: r.object})
				return err
			})
			if err != nil {
				return 0, err
			}
		}
		n, err := r.open.Read(p)
		r.at += int64(n)
		if err == nil || errors.Is(err, io.EOF) || !storage.IsTransient(err) || cuts == patience.Attempts {
			return n, err
		}
		_ = r.Close() // the connection is used up
		if n > 0 {
			return n, nil
		}
	}
}

// Close closes the connection; a later Read opens a new one.
func (r *remote) Close() error {
	if r.open == nil {
		return nil
	}
	err := r.open.Close()
	r.open = nil
	return err
}
