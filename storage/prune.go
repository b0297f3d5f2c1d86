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

// pruneBytes removes at least this many bytes, as far as files are not in use.
func (c *Cache) pruneBytes(n int64) {
	c.removeOldest(c.contents(), n)
}

// content is all data of the cache for one file.
type content struct {
	sha   string
	bytes int64
	used  time.Time
}

// contents lists the contents, the least recently used first.
func (c *Cache) contents() (list []content) {
	bytes := map[string]int64{}
	blobs, _ := filepath.Glob(c.path("blobs", "??", "*")) // the pattern is valid
	for _, blob := range blobs {
		if info, err := os.Lstat(blob); err == nil {
			bytes[filepath.Base(blob)] += info.Size()
		}
	}
	for _, folder := range []string{"unpacked", "named"} {
		entries, _ := os.ReadDir(c.path(folder)) // unreadable files cannot be pruned
		for _, e := range entries {
			bytes[e.Name()] += treeBytes(c.path(folder, e.Name()))
		}
	}
	for sha, n := range bytes {
		if sha == "" || checkSHA256(sha) != nil {
			continue // not from the cache
		}
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
	return list
}

// treeBytes sums the files of a tree, except links to blobs.
func treeBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a file that is removed meanwhile takes no space
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

// removeContent removes all data of a content, unless it is in use.
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
	// The blob is removed first: without it, the rest is not used.
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
	// leftoverAge is the age at which a temporary file must be from a killed process.
	leftoverAge = 24 * time.Hour
	// partialAge is how long an abandoned download can be resumed.
	partialAge = 7 * 24 * time.Hour
)

// sweep removes the remains of killed processes.
func (c *Cache) sweep(now time.Time) {
	old := func(path string, age time.Duration) bool {
		info, err := os.Lstat(path)
		return err == nil && now.Sub(info.ModTime()) > age
	}
	for _, pattern := range []string{
		c.path("unpacked", "*", unpackingPrefix+"*"), c.path("*", atomicfile.TempPrefix+"*"), c.path("named", "*", "*", ".linking-*"),
	} {
		leftovers, _ := filepath.Glob(pattern) // the pattern is valid
		for _, path := range leftovers {
			if old(path, leftoverAge) {
				_ = os.RemoveAll(path) // tried again at the next start
			}
		}
	}
	partials, _ := filepath.Glob(c.path("partial", "*")) // the pattern is valid
	for _, path := range partials {
		if old(path, partialAge) && c.abandoned(path) {
			_ = os.Remove(path) // tried again at the next start
		}
	}
	// Entries of an index are small, but nothing else removes them.
	entries, _ := filepath.Glob(c.path("urls", "*.json")) // the pattern is valid
	if len(entries) > math.MaxInt16 {
		for _, path := range entries {
			if old(path, 90*24*time.Hour) {
				_ = os.Remove(path) // the file is then fetched again
			}
		}
	}
}

// abandoned reports whether no process is downloading into the file.
func (c *Cache) abandoned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read from
	return lockFile(f, syscall.LOCK_EX|syscall.LOCK_NB)
}
