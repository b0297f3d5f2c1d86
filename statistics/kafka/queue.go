package kafka

import (
	"bytes"
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"clearmlserving/atomicfile"
)

const (
	maxMemory = 8 << 20   // bytes of messages in memory; more go to the disk
	maxDisk   = 512 << 20 // bytes of files, compressed
	maxChunk  = 1 << 20   // bytes that are sent at once from memory
	suffix    = ".queue"
	middle    = 1 << 40 // number of the first file
)

// packet is one message with the number of its records.
type packet struct {
	Key     string
	Value   []byte
	Records int
}

// queue has the messages that are not acknowledged yet, in their order: those in flight, those in
// files, those in memory. It has no lock.
type queue struct {
	dir string // "": nothing is stored

	flight     []packet
	flightFile *queueFile // it stays until its messages are acknowledged

	files  []queueFile
	stored int64

	memory []packet
	bytes  int // of memory

	// Bounds of the bytes in memory and on the disk, 0: maxMemory and maxDisk.
	memoryBound int
	diskBound   int64

	lost func(reason string, records int)
	fail func(error) // is told errors of the disk
}

// queueFile is a file of messages. Its name has its number in the order and its number of records, so
// that these are known if its content is damaged.
type queueFile struct {
	number  int64
	records int
	size    int64
}

func (f queueFile) name() string { return fmt.Sprintf("%016x-%d%s", f.number, f.records, suffix) }

// open finds the files of an earlier run.
func (q *queue) open() error {
	if q.dir == "" {
		return nil
	}
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), atomicfile.TempPrefix) { // of a crash; its messages were lost with the memory
			_ = os.Remove(filepath.Join(q.dir, e.Name())) // it is tried again at the next start
			continue
		}
		base, ok := strings.CutSuffix(e.Name(), suffix)
		number, records, ok2 := strings.Cut(base, "-")
		n, err := strconv.ParseInt(number, 16, 64)
		r, err2 := strconv.Atoi(records)
		info, err3 := e.Info()
		if !ok || !ok2 || err != nil || err2 != nil || err3 != nil {
			continue // not ours
		}
		q.files = append(q.files, queueFile{n, r, info.Size()})
		q.stored += info.Size()
	}
	slices.SortFunc(q.files, func(a, b queueFile) int { return int(min(max(a.number-b.number, -1), 1)) })
	return nil
}

// put adds a message at the end.
func (q *queue) put(p packet) {
	bound := cmp.Or(q.memoryBound, maxMemory)
	if q.bytes >= bound {
		q.spill()
	}
	if q.bytes >= 2*bound {
		q.lost("disk", p.Records)
		return
	}
	q.memory = append(q.memory, p)
	q.bytes += len(p.Value)
}

// spill moves the messages in memory to a file. They stay if that fails.
func (q *queue) spill() {
	if len(q.memory) == 0 || q.dir == "" {
		return
	}
	number := int64(middle)
	if n := len(q.files); n > 0 {
		number = q.files[n-1].number + 1
	} else if q.flightFile != nil {
		number = q.flightFile.number + 1
	}
	if q.store(number, q.memory, true) {
		q.memory, q.bytes = nil, 0
	}
}

// store writes a file, at the end or else in front. It reports whether the messages are done with: too
// many are lost, but those of an error are not.
func (q *queue) store(number int64, packets []packet, atEnd bool) bool {
	var text bytes.Buffer
	compressor, err := zstd.NewWriter(&text, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err == nil {
		err = errors.Join(gob.NewEncoder(compressor).Encode(packets), compressor.Close())
	}
	f := queueFile{number, records(packets), int64(text.Len())}
	if err == nil && q.stored+f.size > cmp.Or(q.diskBound, maxDisk) {
		q.lost("queue_full", f.records)
		return true
	}
	if err == nil {
		err = os.MkdirAll(q.dir, 0o700) // it may have been removed
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(q.dir, f.name()), text.Bytes(), 0o600)
	}
	if err != nil {
		q.fail(err)
		return false
	}
	if atEnd {
		q.files = append(q.files, f)
	} else {
		q.files = slices.Insert(q.files, 0, f)
	}
	q.stored += f.size
	return true
}

func records(packets []packet) (n int) {
	for _, p := range packets {
		n += p.Records
	}
	return n
}

// next returns the oldest messages; they are in flight until done.
func (q *queue) next() []packet {
	for len(q.flight) == 0 && len(q.files) > 0 {
		f := q.files[0]
		q.files = q.files[1:]
		packets, err := q.read(f)
		if err != nil {
			q.fail(fmt.Errorf("read %s: %w", f.name(), err))
			q.lost("unreadable", f.records)
			q.remove(f)
			continue
		}
		q.flight, q.flightFile = packets, &f
	}
	if len(q.flight) > 0 {
		return q.flight
	}
	n, size := 0, 0
	for n < len(q.memory) && (n == 0 || size+len(q.memory[n].Value) <= maxChunk) {
		size += len(q.memory[n].Value)
		n++
	}
	q.flight, q.memory = slices.Clone(q.memory[:n]), q.memory[n:]
	q.bytes -= size
	return q.flight
}

func (q *queue) read(f queueFile) (packets []packet, err error) {
	file, err := os.Open(filepath.Join(q.dir, f.name()))
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	decompressor, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, err
	}
	defer decompressor.Close()
	if err := gob.NewDecoder(decompressor).Decode(&packets); err != nil {
		return nil, err
	}
	return packets, nil
}

func (q *queue) remove(f queueFile) {
	q.stored -= f.size
	if err := os.Remove(filepath.Join(q.dir, f.name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		q.fail(err)
	}
}

// done ends the flight: left are those of its messages that are not acknowledged.
func (q *queue) done(left []packet) {
	q.flight = left
	if len(left) == 0 && q.flightFile != nil {
		q.remove(*q.flightFile)
		q.flightFile = nil
	}
}

// close stores what is left.
func (q *queue) close() {
	if q.dir != "" && len(q.memory) > 0 {
		q.spill()
	}
	if q.dir != "" && len(q.flight) > 0 {
		number := int64(middle - 1)
		if q.flightFile != nil {
			number = q.flightFile.number
		} else if len(q.files) > 0 {
			number = q.files[0].number - 1
		}
		before := q.flightFile
		// A file of the same number is only replaced if it has the same number of records.
		if before == nil || records(q.flight) != before.records {
			if q.store(number, q.flight, false) {
				q.flight = nil
				if before != nil {
					q.remove(*before)
				}
			}
		} else {
			q.flight, q.files = nil, slices.Insert(q.files, 0, *before) // the file has all of them
		}
	}
	if n := records(q.memory) + records(q.flight); n > 0 {
		q.lost("disk", n)
	}
	q.memory, q.flight = nil, nil
}

// waiting is the number of records.
func (q *queue) waiting() int {
	n := records(q.memory) + records(q.flight)
	for _, f := range q.files {
		n += f.records
	}
	return n
}
