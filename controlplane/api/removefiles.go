package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// removedFiles is the result of removing the files of deleted documents. The documents are
// deleted in any case.
type removedFiles struct {
	Deleted int          `json:"deleted"`
	Failed  []failedFile `json:"failed"`
}

type failedFile struct {
	URL   string `json:"url"`
	Error string `json:"error"`
}

// removeLimit bounds the removal of all files of one document.
const removeLimit = 2 * time.Minute

var errNoFilePlaces = errors.New("this server removes no files: delete it in its storage")

// removeFiles removes the files at addresses, after the commit that deleted their documents:
// a file without a document can be removed by hand, a document without its file cannot be
// repaired. It continues if the caller disconnects, because the call cannot be repeated.
func (s *Server) removeFiles(ctx context.Context, addresses []string) *removedFiles {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancel()
	done := &removedFiles{Failed: []failedFile{}}
	slices.Sort(addresses)
	for _, address := range slices.Compact(addresses) {
		if address == "" {
			continue
		}
		if err := s.removeFile(ctx, address); err != nil {
			s.log.Warn("file of a deleted document not removed", "file", address, "err", err)
			done.Failed = append(done.Failed, failedFile{address, err.Error()})
			continue
		}
		done.Deleted++
	}
	return done
}

func (s *Server) removeFile(ctx context.Context, address string) error {
	if s.opts.Files == nil {
		return errNoFilePlaces
	}
	others, err := s.store.Count(ctx, store.Model, documents.Is(address, "uri"))
	if err != nil {
		return fmt.Errorf("look for other models with this file: %w", err)
	}
	switch {
	case others == 1:
		return errors.New("the file belongs to 1 other model too")
	case others > 1:
		return fmt.Errorf("the file belongs to %d other models too", others)
	}
	return s.opts.Files.RemoveFile(ctx, address)
}

// all returns all addresses.
func (u *fileURLs) all() []string {
	if u == nil {
		return nil
	}
	return slices.Concat(u.Model, u.Event, u.Artifact)
}
