package listen

import (
	"fmt"
	"net"
	"strings"
)

// InUseError says that another program has the port.
type InUseError struct {
	Name, Addr, Flag string
	PID              int    // 0: unknown
	Command          string // the program's short name
}

func (e *InUseError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen for %s on %s: the port is in use", e.Name, e.Addr)
	if e.PID > 0 {
		fmt.Fprintf(&b, " by process %d (%s)", e.PID, e.Command)
	}
	if e.Flag != "" {
		fmt.Fprintf(&b, "; choose another with %s %s", e.Flag, freeOf(e.Addr))
	}
	return b.String()
}

// freeOf is the same host with a port chosen by the system.
func freeOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	return net.JoinHostPort(host, "0")
}

// OpenError refuses an address that other machines can reach for a listener without credentials.
type OpenError struct{ Name, Addr, Flag string }

func (e *OpenError) Error() string {
	port := "0"
	if _, p, err := net.SplitHostPort(e.Addr); err == nil {
		port = p
	}
	hint := "listen on 127.0.0.1:" + port
	if e.Flag != "" {
		hint = e.Flag + " 127.0.0.1:" + port
	}
	return fmt.Sprintf("listen for %s on %s: other machines could use it without credentials; keep it to this machine with %s, or set credentials for it",
		e.Name, e.Addr, hint)
}

// AddrError describes an invalid address.
type AddrError struct {
	Name, Addr, Flag string
	Problem          string
	Err              error // nil: detected without the system
}

func (e *AddrError) Error() string {
	text := fmt.Sprintf("listen for %s on %q: %s", e.Name, e.Addr, e.Problem)
	if e.Flag != "" {
		text += " (set by " + e.Flag + ")"
	}
	return text
}

func (e *AddrError) Unwrap() error { return e.Err }
