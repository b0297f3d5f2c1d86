package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Source is the source of an adapter's Put. It counts and reports progress, separates the reader's
// error from those of the storage, and fails if the reader ends before or after the announced
// length, so that a truncated source never looks complete. Clients may read on after the answer:
// Stop ends that.
type Source struct {
	ctx         context.Context //nolint:containedctx // lives as long as its Put; io.Reader has no parameter for it
	mu          sync.Mutex      // guards the fields below, and is held during a read
	r           io.Reader
	done, total int64
	progress    Progress
	err         error
	stopped     bool
}

// NewSource wraps the arguments of a Put. If the size is unknown, up to measured bytes are read
// ahead, because small files of unknown size are common and expensive for storages.
func NewSource(ctx context.Context, r io.Reader, size, measured int64, progress Progress) (*Source, error) {
	if size < 0 && measured > 0 {
		var head bytes.Buffer
		n, err := io.CopyN(&head, r, measured)
		switch {
		case errors.Is(err, io.EOF):
			size, r = n, &head
		case err != nil:
			return nil, err
		default:
			r = io.MultiReader(&head, r)
		}
	}
	return &Source{ctx: ctx, r: r, total: size, progress: progress}, nil
}

// Size is the number of bytes to come, -1 if unknown.
func (s *Source) Size() int64 { return s.total }

// Stop waits for a running read, prevents further reads, and returns the error of the reader, if
// any.
func (s *Source) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.err
}

// Read implements io.Reader.
func (s *Source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, io.ErrClosedPipe
	}
	if s.err == nil && s.ctx.Err() != nil {
		s.err = context.Cause(s.ctx)
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.done += int64(n)
	if s.done == s.total && err == nil && n > 0 {
		err = s.ended()
	}
	switch { // before the end is reported, which would make the file look complete
	case s.total >= 0 && s.done > s.total:
		err = fmt.Errorf("the source is longer than the announced %d bytes", s.total)
	case errors.Is(err, io.EOF) && s.done < s.total:
		err = fmt.Errorf("the source is %d bytes shorter than the announced %d", s.total-s.done, s.total)
	}
	if n > 0 && s.progress != nil {
		s.progress(s.done, s.total)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader gives io.EOF itself
		s.err = err
		return 0, err // the last bytes must not be sent either
	}
	return n, err
}

// ended reads one byte beyond the announced length: the client stops reading there, so surplus
// bytes would not be detected otherwise.
func (s *Source) ended() error {
	var more [1]byte
	for {
		n, err := s.r.Read(more[:])
		s.done += int64(n)
		if n > 0 || err != nil {
			return err
		}
	}
}
