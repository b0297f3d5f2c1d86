package listen

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"clearmlserving/atomicfile"
)

// pidKey is the only key of the registry's file that is not a listener.
const pidKey = "pid"

// Registry publishes the listeners' addresses to other programs of this machine: a file with one
// JSON object of texts, name -> URL, and under "pid" the serving process. Its methods may be called
// from many goroutines.
type Registry struct {
	file string

	mu   sync.Mutex // guards urls and the writing of the file
	urls map[string]string
}

// NewRegistry creates a registry for the file. It does not write yet.
func NewRegistry(file string) *Registry {
	return &Registry{file: file, urls: map[string]string{}}
}

// Set sets an address and writes the file. The file is complete at all times.
func (r *Registry) Set(name, url string) error {
	return r.SetAll(map[string]string{name: url})
}

// SetAll sets several addresses with one write, so that readers see all or none.
func (r *Registry) SetAll(urls map[string]string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range urls {
		if name == pidKey || name == "" {
			return fmt.Errorf("write %s: a listener cannot be named %q", r.file, name)
		}
	}
	maps.Copy(r.urls, urls)
	content := maps.Clone(r.urls)
	content[pidKey] = strconv.Itoa(os.Getpid())
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", r.file, err)
	}
	return writeFile(r.file, append(data, '\n'))
}

// All returns a copy of the addresses.
func (r *Registry) All() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.urls)
}

// Remove removes the file if it belongs to this process: a process that was started later on the
// same folder has written its own. A missing file is no error.
func (r *Registry) Remove() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	there, err := ReadRegistry(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if there.PID != os.Getpid() {
		return nil
	}
	if err := os.Remove(r.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Endpoints is the content of a registry's file.
type Endpoints struct {
	URLs map[string]string // by the names of the listeners
	PID  int               // the serving process, 0 if unknown
}

// ErrDamaged says that a registry's file has invalid content.
var ErrDamaged = errors.New("damaged")

// ReadRegistry reads a registry's file. The error is fs.ErrNotExist if there is none, and
// ErrDamaged if it cannot be parsed.
func ReadRegistry(file string) (Endpoints, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Endpoints{}, err
	}
	e := Endpoints{}
	if err := json.Unmarshal(data, &e.URLs); err != nil {
		return Endpoints{}, fmt.Errorf("read %s: it is %w: %w", file, ErrDamaged, err)
	}
	e.PID, _ = strconv.Atoi(e.URLs[pidKey]) // anything else is unknown
	delete(e.URLs, pidKey)
	return e, nil
}

// writeFile replaces the file atomically and creates its folder.
func writeFile(file string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	var err error
	if info, errStat := os.Lstat(file); errStat == nil && info.IsDir() { // a folder cannot be replaced by a file
		err = errors.Join(os.RemoveAll(file+".damaged"), os.Rename(file, file+".damaged"))
	}
	if err == nil {
		err = atomicfile.Write(file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
