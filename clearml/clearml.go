// Package clearml is the client of the ClearML API: sessions, tasks, models, projects, events,
// files, and, based on them, the serving service. It owns the lookup of credentials and the
// handling of tokens. It is the only access to a control plane: the hosted one, a self-hosted one,
// or the embedded one. It does not interpret a service's configuration beyond converting its text
// to JSON, and does not read the environment itself.
package clearml

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Client calls one ClearML server. Its methods may be called from many goroutines. It starts no
// goroutines.
type Client struct {
	config    Config
	log       *slog.Logger
	http      *http.Client
	ownHTTP   bool
	retry     Retry
	name      string
	maxAnswer int64

	session   atomic.Pointer[session]
	loginTurn chan struct{} // of size 1: the goroutine that has put a value in logs in, the others wait
	server    atomic.Pointer[ServerInfo]
	ahead     atomic.Int64 // nanoseconds by which the server's clock is ahead of ours
}

// Options of a Client.
type Options struct {
	Config Config
	Logger *slog.Logger // nil: nothing is logged
	// HTTP makes the requests. If nil, the client makes its own, with the configuration's
	// transport. It must not follow redirects of POST.
	HTTP *http.Client
	// ClientName names the caller, such as "clearml-serving-1.3.5".
	ClientName string
	Retry      Retry
	// MaxAnswer bounds the bytes of one answer. Default 256 MiB.
	MaxAnswer int64
}

// Retry configures retries when the server is unavailable or busy.
type Retry struct {
	// Attempts bounds the attempts of a call. Default 5; 1 means no retry.
	Attempts int
	// First is the wait before the second attempt; it doubles from there, with
	// jitter. Default 200 ms.
	First time.Duration
	// Longest bounds one wait, also one requested by the server. Default 10 s.
	Longest time.Duration
}

// New creates a client. It does not connect: the first call logs in.
func New(o Options) (*Client, error) {
	if o.Config.API.Value == "" {
		return nil, &NotConfiguredError{}
	}
	o.Retry.Attempts = cmp.Or(o.Retry.Attempts, 5)
	o.Retry.First = cmp.Or(o.Retry.First, 200*time.Millisecond)
	o.Retry.Longest = cmp.Or(o.Retry.Longest, 10*time.Second)
	c := &Client{
		config: o.Config, log: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), http: o.HTTP, retry: o.Retry,
		name: cmp.Or(o.ClientName, "clearml-serving"), maxAnswer: cmp.Or(o.MaxAnswer, 256<<20), loginTurn: make(chan struct{}, 1),
	}
	if c.http == nil {
		transport, err := o.Config.NewTransport(5 * time.Minute) // as in the SDK: a busy server may be slow
		if err != nil {
			return nil, err
		}
		c.ownHTTP = true
		c.http = &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return c, nil
}

// Close closes idle connections. Running calls are not affected.
func (c *Client) Close() {
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
}

// Config is the client's configuration.
func (c *Client) Config() Config { return c.config }

// FilesURL is the address of the file server, "" if unknown.
func (c *Client) FilesURL() string { return c.config.Files.Value }

// ServerInfo is the server's description of itself.
type ServerInfo struct {
	Version    string   `json:"version"`
	APIVersion string   `json:"api_version"`
	Extensions []string `json:"extensions"` // of our embedded server
}

// Embedded reports whether the server is the one of this program.
func (i ServerInfo) Embedded() bool { return slices.Contains(i.Extensions, conditionalWrites) }

// Info queries the server's description once; later calls return the first answer.
func (c *Client) Info(ctx context.Context) (ServerInfo, error) {
	if info := c.server.Load(); info != nil {
		return *info, nil
	}
	var info ServerInfo
	err := c.Call(ctx, "server.info", nil, &info)
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return info, err
	}
	c.server.Store(&info)
	return info, nil
}
