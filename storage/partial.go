package storage

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// recordEvery is how many bytes may have to be fetched again after a kill.
const recordEvery = 16 << 20

// span is the bytes from From up to, not including, To.
type span struct{ From, To int64 }

// partial is a running download: a sparse file, and a record of its content and of the state of the
// source. The record never claims bytes that are not on the disk.
type partial struct {
	cache *Cache
	file  *os.File
	note  string // the record's path, "" if nothing is recorded

	mu         sync.Mutex // guards the fields below
	state      partialState
	unrecorded int64
	gone       bool // published or removed
}

type partialState struct {
	Size     int64     `json:"size"`
	ETag     string    `json:"etag,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
	Done     []span    `json:"done"`
}

// openPartial resumes the download of an earlier attempt if the source is still in the same state,
// else begins a new one.
func (c *Cache) openPartial(item Item, object Object) (*partial, error) {
	sum := md5.Sum([]byte(item.URL + "\x00" + item.SHA256))
	path := c.path("partial", hex.EncodeToString(sum[:]))
	c.reached("partial open")
	if err := errors.Join(clearWay(path), clearWay(path+".json")); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &partial{cache: c, file: f, note: path + ".json"}
	if !lockFile(f, syscall.LOCK_EX|syscall.LOCK_NB) || !isAt(f, path) {
		// Another process downloads the same file; this one uses a private copy.
		if err := f.Close(); err != nil {
			return nil, err
		}
		if p.file, err = os.CreateTemp(c.path("partial"), "private-*"); err != nil {
			return nil, err
		}
		p.note = ""
	}
	if !p.load(object) {
		if err := p.reset(object); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// load reads the record; false if it cannot be used.
func (p *partial) load(object Object) bool {
	if p.note == "" || !object.Validated() || object.Size < 0 {
		return false
	}
	data, err := os.ReadFile(p.note)
	if err != nil || json.Unmarshal(data, &p.state) != nil {
		return false
	}
	was := Object{Size: p.state.Size, ETag: p.state.ETag, Modified: p.state.Modified}
	if p.state.Size != object.Size || !was.Validated() || !was.Same(object) {
		return false
	}
	info, err := p.file.Stat()
	if err != nil || info.Size() > object.Size {
		return false
	}
	end := int64(0)
	for _, s := range p.state.Done {
		if s.From < end || s.To <= s.From || s.To > min(info.Size(), object.Size) {
			return false
		}
		end = s.To
	}
	return true
}

// reset discards all bytes and records the state of the source.
func (p *partial) reset(object Object) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cache.reached("partial reset")
	if p.note != "" {
		if err := os.Remove(p.note); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	p.state = partialState{Size: object.Size, ETag: object.ETag, Modified: object.Modified}
	p.unrecorded = 0
	return p.file.Truncate(0)
}

// write writes bytes at their offset. It is called from several goroutines, for different offsets.
func (p *partial) write(b []byte, at int64) error {
	if _, err := p.file.WriteAt(b, at); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Done = join(p.state.Done, span{From: at, To: at + int64(len(b))})
	if p.unrecorded += int64(len(b)); p.unrecorded >= recordEvery {
		return p.record()
	}
	return nil
}

// join adds a span to sorted spans that do not touch.
func join(spans []span, s span) []span {
	i, _ := slices.BinarySearchFunc(spans, s.From, func(e span, from int64) int {
		switch {
		case e.To < from:
			return -1
		case e.To > from:
			return 1
		}
		return 0
	})
	j := i
	for j < len(spans) && spans[j].From <= s.To {
		s.From, s.To = min(s.From, spans[j].From), max(s.To, spans[j].To)
		j++
	}
	return slices.Replace(spans, i, j, s)
}

// record writes the record; p.mu is held. The bytes are synced first, because a power failure could
// otherwise leave a record of missing bytes.
func (p *partial) record() error {
	if p.note == "" || p.gone {
		return nil
	}
	p.cache.reached("partial sync")
	if err := p.file.Sync(); err != nil {
		return err
	}
	data, err := json.Marshal(p.state)
	if err != nil {
		return err
	}
	p.cache.reached("partial record")
	if err := replaceFile(p.note, data); err != nil {
		return err
	}
	p.unrecorded = 0
	return nil
}

// keep records the rest at the end of an attempt, successful or not.
func (p *partial) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.record(); err != nil {
		p.cache.o.Logger.Debug("download not recorded", "file", p.file.Name(), "err", err)
	}
}

// have is the number of downloaded bytes.
func (p *partial) have() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int64
	for _, s := range p.state.Done {
		n += s.To - s.From
	}
	return n
}

// missing lists the missing spans of a file of known length.
func (p *partial) missing() []span {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gaps []span
	at := int64(0)
	for _, s := range append(slices.Clone(p.state.Done), span{From: p.state.Size, To: p.state.Size}) {
		if s.From > at {
			gaps = append(gaps, span{From: at, To: s.From})
		}
		at = s.To
	}
	return gaps
}

func (p *partial) path() string { return p.file.Name() }

func (p *partial) size() int64 {
	n, err := p.file.Seek(0, io.SeekEnd)
	if err != nil {
		return -1
	}
	return n
}

// remove discards the download.
func (p *partial) remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	_ = os.Remove(p.file.Name()) // remaining files are removed later
	if p.note != "" {
		_ = os.Remove(p.note)
	}
}

// close closes the file, which releases the lock.
func (p *partial) close() {
	if p.note == "" {
		p.mu.Lock()
		if !p.gone {
			_ = os.Remove(p.file.Name()) // it could not be resumed
		}
		p.mu.Unlock()
	}
	_ = p.file.Close() // all recorded bytes were synced
}
