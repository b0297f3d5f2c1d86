package files

import (
	"context"
	"io"
	"time"
)

// tree is where the files lie. Names have passed safePath. All methods may be called
// from many goroutines; close only when no other is running any more.
type tree interface {
	// find opens a file for reading; fs.ErrNotExist when there is none, and no word
	// about why there can be none.
	find(ctx context.Context, name string) (content, error)

	// receive takes the bytes of a new file. On error nothing is left of it; one of
	// the reader is a *readError.
	receive(ctx context.Context, name string, from io.Reader) (received, error)

	// place makes a received file visible under its name, replacing what was there.
	place(ctx context.Context, f received) error

	// discard forgets received files that were not placed; for others it does nothing.
	discard(files []received)

	// remove deletes a file, or all below a folder when that is allowed, and tells the
	// name that was meant; fs.ErrNotExist when there is none.
	remove(ctx context.Context, name string, folders bool) (string, error)

	close() error
}

// content is an open file. It is read from one goroutine, and closed by who found it.
type content struct {
	io.ReadSeekCloser
	modified time.Time // zero: not known
	tag      string    // its ETag
}

// received is a file that has arrived whole and is not visible yet, or, in a bucket,
// already is.
type received struct {
	temp, name string
	size       int64
}
