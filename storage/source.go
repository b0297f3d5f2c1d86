package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Source is what an adapter's Put reads from. It counts and reports, keeps the
// error of the reader apart from those of the place, and fails where the reader
// ends before or after the length that was told, so that a cut source never looks
// whole. Clients of a place may read on after they have answered: Stop ends that.
type Source struct {
	mu          sync.Mutex // guards what follows, and is held while the reader is read
	r           io.Reader
	done, total int64
	progress    Progress
	err         error
	stopped     bool
}

// NewSource wraps the arguments of a Put. Without a known size, what fits into
// measured bytes is read ahead, for small files of unknown size are common and
// cost the places much.
func NewSource(r io.Reader, size, measured int64, progress Progress) (*Source, error) {
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
	return &Source{r: r, total: size, progress: progress}, nil
}

// Size is how many bytes will come, -1 when that is not known.
func (s *Source) Size() int64 { return s.total }

// Stop waits for a read under way, allows no further one, and tells how the
// reader failed, nil when it did not.
func (s *Source) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.err
}

// Read fulfils io.Reader.
func (s *Source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, io.ErrClosedPipe
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.done += int64(n)
	if s.done == s.total && err == nil && n > 0 {
		err = s.ended()
	}
	if s.total >= 0 && (s.done > s.total || (errors.Is(err, io.EOF) && s.done < s.total)) {
		// Before the place is told the end, which would make the file look whole.
		err = fmt.Errorf("%d bytes came of %d", s.done, s.total)
	}
	if n > 0 && s.progress != nil {
		s.progress(s.done, s.total)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.Reader gives io.EOF itself
		s.err = err
		return 0, err // nor shall the last bytes be sent
	}
	return n, err
}

// ended looks behind the last byte that was told: a place stops reading there, so
// what comes too much would be noticed by nobody else.
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
