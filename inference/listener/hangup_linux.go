package listener

import "golang.org/x/sys/unix"

// look returns the state of the client, and whether it has acknowledged all sent data: then a few
// more bytes can be sent without blocking. It consumes no bytes, which may be the next request.
// Over TLS the last unread bytes are only a close notification.
func look(fd int) (state clientState, idle bool) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	switch {
	case err != nil || n == 0:
		return clientThere, false
	case p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0: // both sides have ended, or a reset has come
		return clientGone, false
	case p[0].Revents&unix.POLLRDHUP == 0:
		return clientThere, false
	}
	queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return clientEnded, err == nil && queued == 0
}
