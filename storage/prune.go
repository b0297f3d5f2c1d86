package storage

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"clearmlserving/atomicfile"
)

// Prune removes the files that were not used for the longest time until at most
// limit bytes are kept, and tells how many bytes were removed. Files in use stay.
func (c *Cache) Prune(limit int64) (removed int64) {
	contents, total := c.contents()
	return c.removeOldest(contents, total-limit)
}

// prune is Prune with 0 for no limit.
func (c *Cache) prune(limit int64) {
	if limit > 0 {
		c.Prune(limit)
	}
}

// pruneBytes removes at least so many bytes, as far as files are not in use.
func (c *Cache) pruneBytes(n int64) {
	contents, _ := c.contents()
	c.removeOldest(contents, n)
}

// content is all that the cache holds of one file.
type content struct {
	sha   string
	bytes int64
	used  time.Time
}

// contents lists what is there, the one not used for the longest time first.
func (c *Cache) contents() (list []content, total int64) {
	bytes := map[string]int64{}
	blobs, _ := filepath.Glob(c.path("blobs", "??", "*")) // the pattern is right
	for _, blob := range blobs {
		if info, err := os.Lstat(blob); err == nil {
			bytes[filepath.Base(blob)] += info.Size()
		}
	}
	for _, folder := range []string{"unpacked", "named"} {
		entries, _ := os.ReadDir(c.path(folder)) // what can't be read can't be pruned
		for _, e := range entries {
			bytes[e.Name()] += treeBytes(c.path(folder, e.Name()))
		}
	}
	for sha, n := range bytes {
		if sha == "" || checkSHA256(sha) != nil {
			continue // not ours
		}
		total += n
		used := time.Time{}
		if info, err := os.Stat(c.path("leases", sha)); err == nil {
			used = info.ModTime()
		}
		list = append(list, content{sha: sha, bytes: n, used: used})
	}
	slices.SortFunc(list, func(a, b content) int {
		if n := a.used.Compare(b.used); n != 0 {
			return n
		}
		return strings.Compare(a.sha, b.sha)
	})
	return list, total
}

// treeBytes sums the files of a tree, except links to blobs.
func treeBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what vanishes meanwhile takes no room
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			if s, ok := info.Sys().(*syscall.Stat_t); !ok || s.Nlink == 1 {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

func (c *Cache) removeOldest(contents []content, n int64) (removed int64) {
	for _, content := range contents {
		if removed >= n {
			break
		}
		if c.removeContent(content.sha) {
			removed += content.bytes
			c.o.Logger.Info("cached file removed", "sha256", content.sha, "bytes", content.bytes, "used", content.used)
		}
	}
	return removed
}

// removeContent removes all that there is of a content, unless it is in use.
func (c *Cache) removeContent(sha string) bool {
	path := c.path("leases", sha)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read from
	if !lockFile(f, syscall.LOCK_EX|syscall.LOCK_NB) || !isAt(f, path) {
		return false
	}
	// The blob goes first: without it the rest is found by nobody.
	for _, gone := range []string{c.blob(sha), c.path("named", sha), c.path("unpacked", sha), path} {
		c.reached("prune")
		if err := os.RemoveAll(gone); err != nil {
			c.o.Logger.Warn("cached file not removed", "path", gone, "err", err)
			return false
		}
	}
	return true
}

const (
	// leftoverAge is when a temporary file must be one of a process that was killed.
	leftoverAge = 24 * time.Hour
	// partialAge is how long a download that was given up may be taken up again.
	partialAge = 7 * 24 * time.Hour
)

// sweep removes what killed processes left behind.
func (c *Cache) sweep(now time.Time) {
	old := func(path string, age time.Duration) bool {
		info, err := os.Lstat(path)
		return err == nil && now.Sub(info.ModTime()) > age
	}
	for _, pattern := range []string{
		c.path("unpacked", "*", unpackingPrefix+"*"), c.path("*", atomicfile.TempPrefix+"*"), c.path("named", "*", "*", ".linking-*"),
	} {
		leftovers, _ := filepath.Glob(pattern) // the pattern is right
		for _, path := range leftovers {
			if old(path, leftoverAge) {
				_ = os.RemoveAll(path) // tried again at the next start
			}
		}
	}
	partials, _ := filepath.Glob(c.path("partial", "*")) // the pattern is right
	for _, path := range partials {
		if old(path, partialAge) && c.abandoned(path) {
			_ = os.Remove(path) // tried again at the next start
		}
	}
	// Entries of an index cost little, but nothing else ever removes them.
	entries, _ := filepath.Glob(c.path("urls", "*.json")) // the pattern is right
	if len(entries) > math.MaxInt16 {
		for _, path := range entries {
			if old(path, 90*24*time.Hour) {
				_ = os.Remove(path) // the file is then fetched again
			}
		}
	}
}

// abandoned tells whether no process is downloading into the file.
func (c *Cache) abandoned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read from
	return lockFile(f, syscall.LOCK_EX|syscall.LOCK_NB)
}
