package reconcile

import (
	"context"
	"log/slog"
	"time"

	"clearmlserving/storage"
)

// CachedFiles fetches files through the download cache, and logs the progress of long downloads.
type CachedFiles struct {
	Cache  *storage.Cache
	Logger *slog.Logger
}

// Fetch implements Files.
func (c CachedFiles) Fetch(ctx context.Context, f File) (Local, error) {
	begun := time.Now()
	told := begun
	handle, err := c.Cache.Fetch(ctx, f, func(done, total int64) {
		if time.Since(told) < 5*time.Second { // small files need no progress
			return
		}
		told = time.Now()
		c.Logger.Info("downloading", "url", storage.Redact(f.URL), "bytes", done, "of", total)
	})
	if err != nil {
		return Local{}, err
	}
	switch {
	case handle.Stale:
		c.Logger.Warn("serving a file that could not be checked for changes", "url", storage.Redact(f.URL), "err", handle.Why)
	case !handle.FromCache:
		c.Logger.Debug("downloaded", "url", storage.Redact(f.URL), "bytes", handle.Size, "took", time.Since(begun).Round(time.Millisecond))
	}
	return Local{Path: handle.Path, SHA256: handle.SHA256, Fresh: !handle.FromCache, Release: handle.Release}, nil
}
