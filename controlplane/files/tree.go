package files

import (
	"context"
	"io"
	"time"
)

// tree is the storage of the files. Names have passed safePath. All methods may be called from many
// goroutines; close only when no other method is running.
type tree interface {
	// find opens a file for reading; fs.ErrNotExist if there is none, for every reason.
	find(ctx context.Context, name string) (content, error)

	// receive takes the bytes of a new file. On error nothing remains of it.
	receive(ctx context.Context, name string, from io.Reader) (received, error)

	// place makes a received file visible under its name, replacing an existing one.
	place(ctx context.Context, f received) error

	// discard removes received files that were not placed; it does nothing for others.
	discard(files []received)

	// remove deletes a file, or everything below a folder if that is allowed, and returns the
	// stored name; fs.ErrNotExist if there is none.
	remove(ctx context.Context, name string, folders bool) (string, error)

	close() error
}

// content is an open file. It is read from one goroutine, and closed by the caller of find.
type content struct {
	io.ReadSeekCloser
	modified time.Time // zero: unknown
	tag      string    // its ETag
}

// received is a completely received file that is not visible yet; in a bucket it may be.
type received struct {
	temp, name string
	size       int64
}
