// Package listen opens the listening sockets of this product, by one set of rules: loopback by
// default, no access from a network without credentials to anything that changes or reveals data,
// and errors that name the holder of a port and the flag to change. It owns sockets, their TLS, and
// the file with their addresses. It never accepts connections itself.
package listen

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// Options of a Listener.
type Options struct {
	// Name is the purpose of the listener, one word: api, files, serve, admin.
	Name string
	// Addr is host:port. Port 0 selects a free one. An empty host, as in ":8080", is every
	// interface of the machine.
	Addr string
	// Flag is the flag that sets Addr, for hints; "" for hints without one.
	Flag string
	// Credentials means that every client must have credentials.
	Credentials bool
	// AllowOpen allows access from other machines without credentials. The caller must then log a
	// warning (see Listener.Open).
	AllowOpen bool
	// FreeFallback uses a free port if the port of Addr is in use.
	FreeFallback bool
	// TLS, if set, encrypts. A TLS with ClientCA counts as credentials.
	TLS *TLSFiles
	// Logger logs reloads of certificates and their errors. nil discards.
	Logger *slog.Logger
}

// Listener is an open socket. Close closes it; a second Close returns net.ErrClosed.
type Listener struct {
	net.Listener
	name   string
	host   string // as URLs name it
	open   bool
	secure bool
	wanted string // the address in use that a free port replaces
}

// Open opens a socket. Errors for the caller: *InUseError, *OpenError, *AddrError.
func Open(ctx context.Context, o Options) (*Listener, error) {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	addr, host, err := resolve(ctx, o)
	if err != nil {
		return nil, err
	}
	credentials := o.Credentials || (o.TLS != nil && o.TLS.ClientCA != "")
	open := !addr.Addr().IsLoopback() && !credentials
	if open && !o.AllowOpen {
		return nil, &OpenError{Name: o.Name, Addr: o.Addr, Flag: o.Flag}
	}
	var config *tls.Config
	if o.TLS != nil { // before the socket, so that a wrong certificate does not open one
		if config, err = o.TLS.config(o.Name, o.Logger); err != nil {
			return nil, err
		}
	}
	l := &Listener{name: o.Name, host: host, open: open, secure: config != nil}
	l.Listener, err = bind(ctx, o, addr)
	var taken *InUseError
	if errors.As(err, &taken) && o.FreeFallback {
		l.wanted = addr.String()
		l.Listener, err = bind(ctx, o, netip.AddrPortFrom(addr.Addr(), 0))
	}
	if err != nil {
		return nil, err
	}
	if config != nil {
		l.Listener = tls.NewListener(l.Listener, config)
	}
	return l, nil
}

// Name is the purpose of the listener.
func (l *Listener) Name() string { return l.name }

// Open reports whether other machines can reach the listener without credentials.
func (l *Listener) Open() bool { return l.open }

// TLS reports whether the listener encrypts.
func (l *Listener) TLS() bool { return l.secure }

// Wanted is the address that was in use if the listener fell back to a free port, else "".
func (l *Listener) Wanted() string { return l.wanted }

// Port is the listener's port.
func (l *Listener) Port() int {
	addr, _ := l.Addr().(*net.TCPAddr)
	if addr == nil {
		return 0
	}
	return addr.Port
}

// URL is the listener's address for clients on this machine, without a slash at the end.
func (l *Listener) URL() string {
	scheme := "http"
	if l.secure {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(l.host, strconv.Itoa(l.Port()))
}

// GRPC is the listener's address for clients of gRPC on this machine, as URL: grpc://127.0.0.1:8090, or
// grpcs:// with TLS. Such clients take what follows the two slashes.
func (l *Listener) GRPC() string {
	if l.secure {
		return "grpcs://" + l.HostPort()
	}
	return "grpc://" + l.HostPort()
}

// HostPort is the listener's address for clients on this machine, for protocols without a scheme.
func (l *Listener) HostPort() string {
	return net.JoinHostPort(l.host, strconv.Itoa(l.Port()))
}

// resolve turns the address into one IP and port, and the host for URLs. A name is resolved here
// and only the result is bound, so that the checked address is the opened one.
func resolve(ctx context.Context, o Options) (netip.AddrPort, string, error) {
	fail := func(problem string) (netip.AddrPort, string, error) {
		return netip.AddrPort{}, "", &AddrError{Name: o.Name, Addr: o.Addr, Flag: o.Flag, Problem: problem}
	}
	host, service, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return fail("it is not host:port, as in 127.0.0.1:8080 (this machine only) or :8080 (every interface)")
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return fail("its port is not a number from 0 to 65535")
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port)), "127.0.0.1", nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if ip.IsUnspecified() {
			host = "127.0.0.1"
			if ip.Is6() {
				host = "::1"
			}
		}
		return netip.AddrPortFrom(ip, uint16(port)), host, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		return fail("its host can't be resolved")
	}
	chosen := ips[0].Unmap()
	for _, ip := range ips { // IPv4 first, as in clients that use only one address
		if ip = ip.Unmap(); ip.Is4() {
			chosen = ip
			break
		}
	}
	return netip.AddrPortFrom(chosen, uint16(port)), host, nil
}

func bind(ctx context.Context, o Options, addr netip.AddrPort) (net.Listener, error) {
	network := "tcp"
	text := addr.String()
	if ip := addr.Addr(); ip.Is4() {
		network = "tcp4" // 0.0.0.0 means IPv4 only if it is written so
	} else if host, _, _ := net.SplitHostPort(o.Addr); host == "" {
		// Both families, or IPv4 alone on machines without IPv6.
		text = net.JoinHostPort("", strconv.Itoa(int(addr.Port())))
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, network, text)
	if err != nil {
		return nil, explain(o, addr, err)
	}
	return l, nil
}

// explain says why an address cannot be listened on, and what to do.
func explain(o Options, addr netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		taken := &InUseError{Name: o.Name, Addr: o.Addr, Flag: o.Flag}
		taken.PID, taken.Command = holder(os.DirFS("/proc"), addr.Port())
		return taken
	case errors.Is(err, syscall.EACCES):
		return &AddrError{Name: o.Name, Addr: o.Addr, Flag: o.Flag, Problem: "this user may not open it; ports from 1024 up need no privilege", Err: err}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return &AddrError{Name: o.Name, Addr: o.Addr, Flag: o.Flag, Problem: "it is not an address of this machine", Err: err}
	default:
		return fmt.Errorf("listen for %s on %s: %w", o.Name, o.Addr, err)
	}
}
