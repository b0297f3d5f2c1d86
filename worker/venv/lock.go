package venv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPoll is the time between two tries to get a lock: the system call that waits cannot be
// cancelled by a context.
const lockPoll = 200 * time.Millisecond

// lockFile locks a file of that name, exclusively (LOCK_EX) or shared (LOCK_SH), against this and
// other processes. It waits until ctx ends. Closing the file releases the lock. The file is never
// removed: after a removal another process could lock a new file of that name.
func lockFile(ctx context.Context, path string, mode int) (*os.File, error) {
	retry := time.NewTicker(lockPoll)
	defer retry.Stop()
	for {
		f, err := tryLock(path, mode)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryLock is lockFile without waiting: the file is nil if the lock is held.
func tryLock(path string, mode int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, syscall.EISDIR) && os.RemoveAll(path) == nil { // a lock is an empty file
		f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	}
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), mode|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		return nil, nil //nolint:nilnil // the contract above: not an error, only not now
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// unlock releases a lock, also if a process that has inherited the file is alive.
func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}
