package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/postgres"
	"clearmlserving/controlplane/store/sqlite"
)

// What lies in a data folder beside the credentials.
const (
	databaseFile = "clearml.db"
	filesDir     = "files"
)

// OpenStore opens the database of an installation: the file in its data folder, or the
// PostgreSQL database of a URL.
func OpenStore(ctx context.Context, dataDir, databaseURL string, log *slog.Logger) (store.Store, error) {
	if databaseURL != "" {
		return opened(postgres.Open(ctx, postgres.Options{URL: databaseURL, Logger: log}))
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data folder: %w", err)
	}
	return opened(sqlite.Open(ctx, filepath.Join(dataDir, databaseFile)))
}

// checkDatabaseFile looks for a folder whose database was lost: a start would make a new
// one, and everything that the files belong to would be gone without a word.
func (s *Server) checkDatabaseFile() error {
	path := filepath.Join(s.opts.DataDir, databaseFile)
	left, err := remains(s.opts.DataDir)
	if err != nil || left == "" {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.log.Warn("database file is missing beside what an earlier installation has left: a new one is made", "missing", path, "left", left)
		return nil
	case err != nil:
		return fmt.Errorf("look at the database file: %w", err)
	case info.Size() > 0:
		return nil
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		return nil // all of it is there still
	}
	return fmt.Errorf("the database file %s is empty, but %s is left of an installation: restore a backup into another folder (clearml-serving server restore), or remove the empty file to begin a new installation beside it", path, left)
}

// remains names something in a data folder that only a database gives a meaning, or "".
func remains(dir string) (string, error) {
	for _, name := range []string{credentialsFile, filesDir} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", fmt.Errorf("look for an earlier installation: %w", err)
		case !info.IsDir():
			return path, nil
		}
		inside, err := os.ReadDir(path)
		if err != nil {
			return "", fmt.Errorf("look for an earlier installation: %w", err)
		}
		for _, entry := range inside {
			if !strings.HasPrefix(entry.Name(), ".") { // unfinished uploads
				return path, nil
			}
		}
	}
	return "", nil
}

// opened keeps a nil pointer from becoming a store that isn't nil.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// news are the writes that other servers on the database shall hear of. Many to one
// document count as one.
type news struct {
	mu      sync.Mutex // guards pending
	pending map[store.News]bool
	some    chan struct{} // holds one token while something is pending
}

func newNews() *news {
	return &news{pending: map[store.News]bool{}, some: make(chan struct{}, 1)}
}

// add never blocks, however slow the database is.
func (n *news) add(item store.News) {
	n.mu.Lock()
	n.pending[item] = true
	n.mu.Unlock()
	select {
	case n.some <- struct{}{}:
	default:
	}
}

func (n *news) take() []store.News {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []store.News
	for item := range n.pending {
		out = append(out, item)
	}
	clear(n.pending)
	return out
}

// changed rings the feed of this process and leaves a note for other servers.
func (s *Server) changed(kind store.Kind, id string) {
	s.feed.Ring(string(kind), id)
	if s.news != nil {
		s.news.add(store.News{Kind: kind, ID: id})
	}
}

// exchangeNews tells other servers on the database of this one's writes and rings the
// feed for theirs, until ctx ends. A database of one server has no news.
func (s *Server) exchangeNews(ctx context.Context) error {
	shared, ok := s.store.(store.Shared)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var telling sync.WaitGroup
	telling.Go(func() { s.tellNews(ctx, shared) })
	defer telling.Wait()
	err := shared.Hear(ctx, func(n store.News) {
		if n.Kind != "" {
			s.feed.Ring(string(n.Kind), n.ID)
			return
		}
		for _, kind := range []store.Kind{store.Task, store.Model, store.Project} {
			s.feed.Ring(string(kind), "")
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Server) tellNews(ctx context.Context, shared store.Shared) {
	for {
		select {
		case <-s.news.some:
		case <-ctx.Done():
			return
		}
		// What isn't told is found by the others at their next poll.
		if err := shared.Tell(ctx, s.news.take()); err != nil && ctx.Err() == nil {
			s.log.Warn("other servers didn't hear of a change", "err", err)
		}
	}
}
