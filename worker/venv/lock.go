package venv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPoll is the time between two tries to get a lock: the system can wait for
// one, but then not for a context.
const lockPoll = 200 * time.Millisecond

// lockFile locks a file of that name, which keeps others out in this process and
// in others (mode LOCK_EX), or those who want it for themselves (LOCK_SH). It
// waits until ctx ends. Closing the file gives the lock back. The file stays: its
// removal would let a third one lock another file of that name.
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

// tryLock is lockFile without waiting: the file is nil when others hold it.
func tryLock(path string, mode int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, syscall.EISDIR) && os.RemoveAll(path) == nil { // nothing of ours: a lock is an empty file
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
		return nil, nil //nolint:nilnil // the contract above: nobody's fault, only not now
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// unlock gives a lock back, also when a process that has inherited the file lives on.
func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	_ = f.Close()
}
