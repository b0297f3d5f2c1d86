package listener

import "golang.org/x/sys/unix"

// look tells what is known of the other side, and whether all that was sent to it has
// been taken: then a few bytes more are sent without waiting. It takes no bytes, which
// may be the next request; over TLS the last unread ones are no more than a farewell.
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
