package storage

import "time"

// AtEachStep calls f before each change of the cache's folder.
func (c *Cache) AtEachStep(f func(step string)) { c.reached = f }

// Sweep removes what killed processes left, as if it were another time.
func (c *Cache) Sweep(now time.Time) { c.sweep(now) }

// SafeName and FileName let fuzz targets in on the rules for names.
var (
	SafeName = safeName
	FileName = fileName
)

// Span and Join let tests in on the record of what a download has.
type Span = span

var Join = join
