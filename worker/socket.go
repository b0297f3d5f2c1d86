package worker

import (
	"errors"
	"net"
	"os"
)

// socketPair makes a pair of connected sockets: one for the runtime's poller, the other for a
// process.
func socketPair(kind socketKind, name string) (*net.UnixConn, *os.File, error) {
	fds, err := newSocketPair(kind)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	defer func() { _ = ours.Close() }() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		_ = theirs.Close()
		return nil, nil, errors.Join(errors.New("not a unix socket"), conn.Close())
	}
	return unixConn, theirs, nil
}

// socketKind says whether a socket keeps the boundaries of messages.
type socketKind int
