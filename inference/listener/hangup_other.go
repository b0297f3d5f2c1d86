//go:build !linux

package listener

import (
	"errors"

	"golang.org/x/sys/unix"
)

// look returns the state of the client. Here a disconnected client cannot be distinguished from a
// waiting one: its request is answered.
func look(fd int) (state clientState, idle bool) {
	var b [1]byte
	_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.ECONNRESET) {
		return clientGone, false
	}
	return clientThere, false
}
