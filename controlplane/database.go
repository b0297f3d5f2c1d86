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

// The other parts of a data folder.
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

// checkDatabaseFile detects a folder whose database was lost: a start would create a new
// one, and the documents of the existing files would be gone without notice.
func (s *Server) checkDatabaseFile() error {
	path := filepath.Join(s.opts.DataDir, databaseFile)
	left, err := remains(s.opts.DataDir)
	if err != nil || left == "" {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.log.Warn("database file is missing beside remains of an installation: new one created", "missing", path, "left", left)
		return nil
	case err != nil:
		return fmt.Errorf("look at the database file: %w", err)
	case info.Size() > 0:
		return nil
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		return nil // the write-ahead log still has the content
	}
	return fmt.Errorf("the database file %s is empty, but %s is left of an installation: restore a backup into another folder (clearml-serving server restore), or remove the empty file to begin a new installation beside it", path, left)
}

// remains names something in a data folder that is useless without a database, or "".
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

// opened prevents a nil pointer from becoming a non-nil store.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// changed rings the feed of this process, and the one that other servers are notified by.
func (s *Server) changed(kind store.Kind, id string) {
	s.feed.Ring(string(kind), id)
	s.own.Ring(string(kind), id)
}

// exchangeNews notifies other servers on the database of this one's writes and rings the
// feed for theirs, until ctx ends. A database that only one server can use has no news.
func (s *Server) exchangeNews(ctx context.Context) error {
	shared, ok := s.store.(store.Shared)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var telling sync.WaitGroup
	telling.Go(func() {
		for s.ownWrites.Next(ctx) == nil {
			// The others find what they are not notified of at their next poll.
			if err := shared.Tell(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("other servers not notified of a change", "err", err)
			}
		}
	})
	defer telling.Wait()
	err := shared.Hear(ctx, func() {
		for _, kind := range []store.Kind{store.Task, store.Model, store.Project} {
			s.feed.Ring(string(kind), "")
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
