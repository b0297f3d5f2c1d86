package statistics

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of the file: a head, a page for the journal of each lane, the ring of each lane, and
// then blocks. Parts that no lane uses have no room on the disk.
const (
	page        = 4096
	ringSize    = 2 << 20
	ringsAt     = 128 << 10 // the parts begin at multiples of 64 KiB, the largest pages of any system
	blocksAt    = ringsAt + maxLanes*ringSize
	chunkBlocks = 16    // room for blocks is taken in chunks
	maxBlocks   = 65536 // 768 MiB
	maxURL      = 1000  // bytes of a url in a block
	blockHead   = 1024  // bytes before the cells
	fileMagic   = "CLSTATS1"
)

// blockSize is a whole number of pages.
func blockSize() int { return (blockHead + places.size*8 + page - 1) / page * page }

// fileHead is the beginning of the file.
type fileHead struct {
	magic  [8]byte
	layout uint32 // of this version of the program
	crc    uint32 // of magic, layout and id
	id     [16]byte
}

func (h *fileHead) sum() uint32 {
	b := append(h.magic[:], h.id[:]...)
	return crc32.ChecksumIEEE(binary.NativeEndian.AppendUint32(b, h.layout))
}

// layoutOf changes with the meaning of any byte of the file.
func layoutOf() uint32 {
	h := crc32.NewIEEE()
	_, _ = fmt.Fprint(h, page, ringSize, maxLanes, blockSize(), blockHead, maxChanges, unsafe.Sizeof(journal{}), unsafe.Sizeof(ringHead{}), places.size, seconds.bounds, sizes.bounds)
	return h.Sum32()
}

// stateHead is the beginning of a block.
type stateHead struct {
	used   uint32 // 1: the block has counters
	crc    uint32 // of the fields below
	meter  uint64
	length uint32
	_      uint32
	url    [maxURL]byte
}

func (h *stateHead) sum() uint32 {
	b := binary.NativeEndian.AppendUint64(nil, h.meter)
	b = binary.NativeEndian.AppendUint32(b, h.length)
	return crc32.ChecksumIEEE(append(b, h.url[:min(h.length, maxURL)]...))
}

// file keeps counters in memory that the system writes to a file: what a killed process has counted
// is there. A nil *file keeps nothing.
type file struct {
	path    string
	f       *os.File
	log     *slog.Logger
	id      [16]byte
	reserve func(f *os.File, offset, size int64) error
	failed  atomic.Bool // something is not in the file
	broken  atomic.Bool // its memory cannot be used
	mu      sync.Mutex  // guards the fields below
	blocks  []*block
	free    []*block
	mapped  [][]byte
	damaged int // blocks that were not used
}

// errLocked means that another process uses the file.
var errLocked = errors.New("another process uses it")

// openFile opens or creates a file of counters. A file that is damaged or of another version is set aside.
func openFile(path string, log *slog.Logger) (*file, error) {
	for attempt := 0; ; attempt++ {
		s, err := openOnce(path, log)
		if unusable, ok := errors.AsType[*unusableError](err); ok && attempt == 0 {
			aside, err := setAside(path)
			if err != nil {
				return nil, err
			}
			log.Warn("statistics file set aside, counters begin at 0", "file", path, "kept_as", aside, "reason", unusable.reason)
			continue
		}
		return s, err
	}
}

// setAside renames a file, or what is in its place, and removes what was set aside before.
func setAside(path string) (aside string, err error) {
	aside = path + ".damaged"
	if err := os.RemoveAll(aside); err != nil {
		return aside, err
	}
	return aside, os.Rename(path, aside)
}

type unusableError struct{ reason string }

func (e *unusableError) Error() string { return "unusable statistics file: " + e.reason }

func openOnce(path string, log *slog.Logger) (s *file, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, &unusableError{"it is not a regular file"}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s = &file{path: path, f: f, log: log, reserve: reserve}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
			s = nil
		}
	}()
	if err := lockFile(f); err != nil {
		return s, err
	}
	info, err = f.Stat()
	if err != nil {
		return s, err
	}
	if same, err := os.Lstat(path); err != nil || !os.SameFile(info, same) {
		return s, errLocked // it was set aside meanwhile
	}
	size := info.Size()
	if size == 0 {
		if err := s.create(); err != nil {
			_ = os.Remove(path) // it is not complete
			return s, err
		}
		size = blocksAt
	}
	if size < blocksAt {
		return s, &unusableError{fmt.Sprintf("it has only %d bytes", size)}
	}
	head, err := s.mapped0()
	if err != nil {
		return s, err
	}
	h := at[fileHead](head, 0)
	switch {
	case string(h.magic[:]) != fileMagic || h.crc != h.sum():
		return s, &unusableError{"its beginning is damaged"}
	case h.layout != layoutOf():
		return s, &unusableError{"it is of another version of the program"}
	}
	s.id = h.id
	for offset := int64(blocksAt); offset+int64(chunkBlocks*blockSize()) <= size && len(s.blocks) < maxBlocks; offset += int64(chunkBlocks * blockSize()) {
		if err := s.addChunk(offset); err != nil {
			return s, err
		}
	}
	return s, nil
}

// create writes the parts that each file has.
func (s *file) create() error {
	if err := s.f.Truncate(blocksAt); err != nil {
		return err
	}
	head, err := s.mapped0()
	if err != nil {
		return err
	}
	h := at[fileHead](head, 0)
	copy(h.magic[:], fileMagic)
	h.layout = layoutOf()
	_, _ = rand.Read(h.id[:]) // it never fails
	h.crc = h.sum()
	return nil
}

// mapped0 is the head with the journals.
func (s *file) mapped0() ([]byte, error) {
	if len(s.mapped) == 0 {
		if _, err := s.use(0, ringsAt); err != nil {
			return nil, err
		}
	}
	return s.mapped[0], nil
}

func (s *file) use(offset int64, size int) ([]byte, error) {
	if err := s.reserve(s.f, offset, int64(size)); err != nil {
		return nil, fmt.Errorf("take room for %s: %w", s.path, err)
	}
	memory, err := mapFile(s.f, offset, size)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", s.path, err)
	}
	s.mapped = append(s.mapped, memory)
	return memory, nil
}

// journal is that of a lane.
func (s *file) journal(lane int) *journal { return at[journal](s.mapped[0], journalAt(lane)) }

func journalAt(lane int) int { return page * (1 + lane) }

// headAt is the place of the head of a lane's ring.
func headAt(lane int) uint64 {
	return uint64(journalAt(lane)) + uint64(unsafe.Offsetof(journal{}.head))
}

// ring is the memory of a lane's ring. Only one that has been used has room on the disk.
func (s *file) ring(lane int) ([]byte, error) {
	offset := int64(ringsAt + lane*ringSize)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.use(offset, ringSize)
}

// addChunk takes over a chunk of blocks.
func (s *file) addChunk(offset int64) error {
	memory, err := s.use(offset, chunkBlocks*blockSize())
	if err != nil {
		return err
	}
	for i := range chunkBlocks {
		start := i * blockSize()
		s.blocks = append(s.blocks, &block{
			head: at[stateHead](memory, start), at: uint64(offset) + uint64(start+blockHead),
			cells: unsafe.Slice(at[uint64](memory, start+blockHead), places.size),
		})
	}
	return nil
}

// stored is a block that an earlier process has used.
type stored struct {
	*block

	meter uint64
	url   string
}

// load completes what killed processes have begun, and returns the blocks in use.
func (s *file) load() (all []stored) {
	for lane := range maxLanes {
		j := s.journal(lane)
		if n := j.n; n > 0 && n <= maxChanges {
			for _, e := range j.entries[:n] {
				s.redo(e)
			}
		}
		j.n = 0
	}
	for _, b := range s.blocks {
		switch h := b.head; {
		case h.used != 1:
			s.free = append(s.free, b)
		case h.length > maxURL || h.crc != h.sum() || !plausible(b.cells):
			s.damaged++
			s.free = append(s.free, b)
		default:
			all = append(all, stored{b, h.meter, string(h.url[:h.length])})
		}
	}
	if s.damaged > 0 {
		s.log.Warn("damaged counters dropped, they begin at 0", "file", s.path, "blocks", s.damaged)
	}
	return all
}

// redo writes a value of a journal to its place. Counters never fall: a smaller value is older.
func (s *file) redo(e journalEntry) {
	if e.offset < ringsAt {
		for lane := range maxLanes {
			if e.offset == headAt(lane) {
				j := s.journal(lane)
				j.head = max(j.head, e.value)
			}
		}
		return
	}
	i := (int(e.offset) - blocksAt) / blockSize()
	if e.offset < blocksAt || i >= len(s.blocks) {
		return
	}
	if b := s.blocks[i]; e.offset >= b.at && (e.offset-b.at)/8 < uint64(len(b.cells)) {
		cell := &b.cells[(e.offset-b.at)/8]
		*cell = max(*cell, e.value)
	}
}

// plausible reports whether cells may be counters.
func plausible(cells []uint64) bool {
	for _, n := range cells {
		if n > 1<<62 {
			return false
		}
	}
	return true
}

// allocate returns a block of the file for a meter, nil if there is none.
func (s *file) allocate(meter uint64, url string, cells []uint64) *block {
	if s == nil || len(url) > maxURL || s.broken.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		if err := s.grow(); err != nil {
			s.fail(err)
			return nil
		}
	}
	b := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	clear(b.cells)
	copy(b.cells, cells)
	h := b.head
	h.meter, h.length = meter, uint32(len(url))
	copy(h.url[:], url)
	h.crc = h.sum()
	atomic.StoreUint32(&h.used, 1) // only now it belongs to the meter
	return b
}

// grow takes room for more blocks.
func (s *file) grow() error {
	if len(s.blocks) >= maxBlocks {
		return fmt.Errorf("%s has reached its limit of %d blocks", s.path, maxBlocks)
	}
	offset := int64(blocksAt + len(s.blocks)*blockSize())
	if err := s.addChunk(offset); err != nil {
		return err
	}
	for _, b := range s.blocks[len(s.blocks)-chunkBlocks:] {
		b.head.used = 0
		s.free = append(s.free, b)
	}
	return nil
}

// release makes a block free again.
func (s *file) release(b *block) {
	if s == nil || b.at == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	atomic.StoreUint32(&b.head.used, 0)
	s.free = append(s.free, b)
}

// fail notes that something is in memory only.
func (s *file) fail(err error) {
	if !s.failed.Swap(true) {
		s.log.Error("statistics are kept in memory only, a restart loses them", "file", s.path, "err", err)
	}
}

// is reports whether this is the file that is used.
func (s *file) is(info os.FileInfo) bool {
	own, err := s.f.Stat()
	return err == nil && os.SameFile(own, info)
}

// gone reports whether something else has removed, replaced or cut off the file.
func (s *file) gone() bool {
	info, err := os.Lstat(s.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.is(info) || info.Size() < blocksAt+int64(len(s.blocks)*blockSize())
}

// close unmaps and unlocks the file. Nothing of its memory may be used afterwards.
func (s *file) close() (err error) {
	for _, memory := range s.mapped {
		err = errors.Join(err, unmapFile(memory))
	}
	return errors.Join(err, s.f.Close())
}

// lockFile takes the file for this process. The lock ends with the process.
func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

func mapFile(f *os.File, offset int64, size int) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func unmapFile(memory []byte) error { return unix.Munmap(memory) }

// fill is reserve for file systems without a call for it: it writes zeros where there is nothing.
func fill(f *os.File, offset, size int64) error {
	none, found := make([]byte, page), make([]byte, page)
	for end := offset + size; offset < end; offset += page {
		n, err := f.ReadAt(found, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(found[:n], none[:n]) {
			if _, err := f.WriteAt(none, offset); err != nil {
				return err
			}
		}
	}
	return nil
}
