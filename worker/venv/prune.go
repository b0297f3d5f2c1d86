package venv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// DefaultKeep is the time after which an unused environment is removed.
const DefaultKeep = 30 * 24 * time.Hour

const (
	lockSuffix = ".lock" // of the file that is locked while an environment is created
	useSuffix  = ".use"  // of the file that is locked, shared, while it is used
)

// use marks an environment as used: from here on no process on this machine prunes it until the
// Maker is closed, and its age starts at zero. It waits while the environment is being pruned.
func (m *Maker) use(ctx context.Context, e Environment) error {
	m.mu.Lock()
	f, held := m.used[e.Dir]
	if _, err := os.Stat(e.Dir + useSuffix); held && errors.Is(err, fs.ErrNotExist) {
		_ = f.Close() // the lock of a removed file has no effect
		delete(m.used, e.Dir)
		held = false
	}
	m.mu.Unlock()
	if !held {
		f, err := lockFile(ctx, e.Dir+useSuffix, syscall.LOCK_SH)
		if err != nil {
			return err
		}
		m.mu.Lock()
		if _, held := m.used[e.Dir]; held { // another goroutine was faster
			_ = f.Close()
		} else {
			m.used[e.Dir] = f
		}
		m.mu.Unlock()
	}
	now := time.Now()
	if err := os.Chtimes(e.Dir+useSuffix, now, now); err != nil {
		m.o.Logger.Debug("use of python environment not recorded", "environment", filepath.Base(e.Dir), "err", err)
	}
	return nil
}

// Close releases the environments that the Maker has marked as used. It is called once, when no
// process runs in its environments.
func (m *Maker) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir, f := range m.used {
		_ = f.Close() // releases the lock
		delete(m.used, dir)
	}
}

// Prune removes the environments that no process on this machine uses and that were not used for
// Options.Keep, and the remains of interrupted creations of that age. It returns their number.
func (m *Maker) Prune() (removed int, err error) {
	entries, err := os.ReadDir(m.o.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("prune python environments: %w", err)
	}
	var all error
	for _, entry := range entries {
		if !entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		gone, err := m.pruneOne(filepath.Join(m.o.Dir, entry.Name()))
		if err != nil {
			all = errors.Join(all, fmt.Errorf("prune python environment %s: %w", entry.Name(), err))
		}
		if gone {
			removed++
		}
	}
	return removed, all
}

func (m *Maker) pruneOne(dir string) (gone bool, err error) {
	if used, err := lastUse(dir); err != nil || time.Since(used) < m.o.Keep {
		return false, err
	}
	// Both locks are tried, without waiting: a held lock means that the environment is used or
	// being created.
	for _, suffix := range []string{lockSuffix, useSuffix} {
		f, err := tryLock(dir+suffix, syscall.LOCK_EX)
		if f == nil {
			return false, err
		}
		defer f.Close() //nolint:errcheck // releases the lock
	}
	if used, err := lastUse(dir); err != nil || time.Since(used) < m.o.Keep { // meanwhile
		return false, err
	}
	// Without its stamp it counts as incomplete, also if the removal is interrupted.
	if err := os.Remove(filepath.Join(dir, stampFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, err
	}
	m.o.Logger.Info("unused python environment removed", "environment", filepath.Base(dir))
	return true, nil
}

// lastUse is when an environment was last marked as used, or else created.
func lastUse(dir string) (time.Time, error) {
	info, err := os.Stat(dir + useSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(dir)
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
