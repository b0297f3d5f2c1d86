//go:build !linux

package listener

import (
	"errors"

	"golang.org/x/sys/unix"
)

// look tells what is known of the other side. A client that has ended its side is not
// told from one that waits here: its request is answered.
func look(fd int) (state clientState, idle bool) {
	var b [1]byte
	_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.ECONNRESET) {
		return clientGone, false
	}
	return clientThere, false
}
