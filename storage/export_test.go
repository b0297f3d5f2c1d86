package storage

import "time"

// AtEachStep calls f before each change of the cache's folder.
func (c *Cache) AtEachStep(f func(step string)) { c.reached = f }

// Sweep removes the remains of killed processes, at the given time.
func (c *Cache) Sweep(now time.Time) { c.sweep(now) }

// SafeName and FileName export the rules for names to fuzz targets.
var (
	SafeName = safeName
	FileName = fileName
)

// Prune removes the least recently used contents until at most limit bytes are left, and returns
// the number of removed bytes.
func (c *Cache) Prune(limit int64) int64 {
	contents := c.contents()
	n := -limit
	for _, content := range contents {
		n += content.bytes
	}
	return c.removeOldest(contents, n)
}
