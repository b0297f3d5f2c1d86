package statistics

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	checkpointMagic = "CLVARS01"
	// checkpointEvery bounds what a start reads again, and how often the checkpoint is written.
	checkpointEvery = 5 * time.Second
)

// checkpoint has what was read from the rings: all variables, and how far each ring was read. Together with
// the unread samples in the rings, it is everything that was recorded.
type checkpoint struct {
	ID      [16]byte // of the file of the rings
	Read    [maxLanes]uint64
	Dropped uint64
	Broken  uint64
	Meters  map[uint64]*variables
}

func checkpointPath(file string) string { return file + ".variables" }

// save writes a checkpoint. It is not forced to the disk: it must survive this process, not the machine.
func (c *checkpoint) save(path string) error {
	var b bytes.Buffer
	b.WriteString(checkpointMagic + "    ")
	if err := gob.NewEncoder(&b).Encode(c); err != nil {
		return err
	}
	content := b.Bytes()
	binary.LittleEndian.PutUint32(content[len(checkpointMagic):], crc32.ChecksumIEEE(content[len(checkpointMagic)+4:]))
	temp := filepath.Join(filepath.Dir(path), ".writing-"+filepath.Base(path)) // a remainder is replaced by the next one
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return os.Rename(temp, path)
}

// readCheckpoint reads the checkpoint of a file; nil: there is none. A damaged one is set aside.
func readCheckpoint(path string, id [16]byte) (*checkpoint, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, err
	}
	c := &checkpoint{}
	rest, ok := bytes.CutPrefix(content, []byte(checkpointMagic))
	switch {
	case !ok || len(rest) < 4 || binary.LittleEndian.Uint32(rest) != crc32.ChecksumIEEE(rest[4:]):
		err = errors.New("it is damaged")
	default:
		if err = gob.NewDecoder(bytes.NewReader(rest[4:])).Decode(c); err == nil && c.ID != id {
			err = errors.New("it belongs to another file of counters")
		}
	}
	if err != nil {
		aside := path + ".damaged"
		return nil, errors.Join(fmt.Errorf("logged variables begin at 0, their file is kept as %s: %w", aside, err), os.Rename(path, aside))
	}
	return c, nil
}
