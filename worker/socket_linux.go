package worker

import "golang.org/x/sys/unix"

const (
	packets socketKind = unix.SOCK_SEQPACKET
	stream  socketKind = unix.SOCK_STREAM
)

func newSocketPair(kind socketKind) ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, int(kind)|unix.SOCK_CLOEXEC, 0)
}
