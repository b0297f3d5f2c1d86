package statistics

import (
	"encoding/binary"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFile: whatever damages the file of counters or its checkpoint, an instance starts, records and
// exposes, and the next start too.
func FuzzFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "statistics")
	m := Open(path, slog.New(slog.DiscardHandler))
	m.Follow(planOf(variablesOfTest, "m"))
	record(m, "m", 20)
	if err := m.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	variables, err := os.ReadFile(checkpointPath(path))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{}, uint32(len(whole)))
	f.Add([]byte{0, 16, 0, 0, 24, 0xff, 0xff, 0, 0, 0, 0}, []byte{1, 2, 3}, uint32(len(whole)))
	f.Add(binary.LittleEndian.AppendUint32(nil, blocksAt), []byte{0}, uint32(len(whole)-1000))
	f.Fuzz(func(t *testing.T, changes, checkpoint []byte, size uint32) {
		path := filepath.Join(t.TempDir(), "statistics")
		content := append([]byte(nil), whole...)
		for ; len(changes) >= 5; changes = changes[5:] { // a place and a value
			content[int(binary.LittleEndian.Uint32(changes))%len(content)] = changes[4]
		}
		if err := writeSparse(path, content[:int(size)%(len(content)+1)]); err != nil {
			t.Fatal(err)
		}
		text := append([]byte(nil), variables...)
		for i := 0; i+2 < len(checkpoint); i += 3 {
			text[int(binary.LittleEndian.Uint16(checkpoint[i:]))%len(text)] = checkpoint[i+2]
		}
		if err := os.WriteFile(checkpointPath(path), text, 0o600); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			m := Open(path, slog.New(slog.DiscardHandler))
			m.Follow(planOf(variablesOfTest, "m", "new"))
			record(m, "new", 2)
			has(t, m, recorded("new", 2*(i+1))...)
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzCheckpoint: whatever is in a checkpoint with a right sum, it is read or refused.
func FuzzCheckpoint(f *testing.F) {
	path := filepath.Join(f.TempDir(), "variables")
	c := &checkpoint{Meters: map[uint64]*variables{1: newVariables()}}
	if err := c.save(path); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[len(checkpointMagic)+4:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "variables")
		text := append([]byte(checkpointMagic), binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(content))...)
		if err := os.WriteFile(path, append(text, content...), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readCheckpoint(path, [16]byte{})
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
