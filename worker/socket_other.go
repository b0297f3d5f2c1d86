//go:build unix && !linux

package worker

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// No packets in order here: datagrams between a pair are, and keep their limits.
const (
	packets socketKind = unix.SOCK_DGRAM
	stream  socketKind = unix.SOCK_STREAM
)

func newSocketPair(kind socketKind) ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, int(kind), 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}
