package storage

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"time"

	"clearmlserving/atomicfile"
)

// indexEntry is the content of a URL when it was last read.
type indexEntry struct {
	URL     string    `json:"url"` // redacted, for readers; the file's name is the key
	SHA256  string    `json:"sha256"`
	Fetched time.Time `json:"fetched"`
	fileState
}

// fileState is what is recorded of a file's Object.
type fileState struct {
	Size     int64     `json:"size"`
	ETag     string    `json:"etag,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

func stateOf(o Object) fileState { return fileState{Size: o.Size, ETag: o.ETag, Modified: o.Modified} }

func (s fileState) object() Object { return Object{Size: s.Size, ETag: s.ETag, Modified: s.Modified} }

// current reports whether the file at its source is known to be the one that was read.
func (e indexEntry) current(now Object) bool {
	// Modification times have whole seconds in HTTP: a file that was just written when it was read
	// may have been written again in the same second.
	if now.ETag == "" && e.Modified.After(e.Fetched.Add(-2*time.Second)) {
		return false
	}
	return e.object().Same(now)
}

func (c *Cache) indexFile(url string) string {
	sum := md5.Sum([]byte(url))
	return c.path("urls", hex.EncodeToString(sum[:])+".json")
}

// readIndex returns the entry of a URL. A damaged entry counts as missing: the file is fetched
// again.
func (c *Cache) readIndex(url string) (indexEntry, bool) {
	data, err := os.ReadFile(c.indexFile(url))
	if err != nil {
		return indexEntry{}, false
	}
	var e indexEntry
	if json.Unmarshal(data, &e) != nil || e.SHA256 == "" || checkSHA256(e.SHA256) != nil || e.URL != Redact(url) {
		return indexEntry{}, false
	}
	return e, true
}

func (c *Cache) writeIndex(url string, object Object, sha string) error {
	data, err := json.Marshal(indexEntry{URL: Redact(url), SHA256: sha, Fetched: time.Now(), fileState: stateOf(object)})
	if err != nil {
		return err
	}
	c.reached("index")
	if err := replaceFile(c.indexFile(url), data); err != nil {
		return dirError(c.o.Dir, err)
	}
	return nil
}

// replaceFile replaces a file of the cache, or a folder in its place.
func replaceFile(file string, data []byte) error {
	if err := clearWay(file); err != nil {
		return err
	}
	return atomicfile.Write(file, data, 0o600)
}

// syncDir syncs a folder, so that its new names survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrInvalid) {
		err = nil // not supported by every file system
	}
	return errors.Join(err, d.Close())
}
