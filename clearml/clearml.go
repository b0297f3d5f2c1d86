// Package clearml is the client of the ClearML API: sessions, tasks, models,
// projects, events, files, and on top of them the serving service. It owns how
// credentials are found and how tokens are kept. It is the only way to a
// control plane, be it the hosted one, a self-deployed or our embedded one. It
// never interprets a service's configuration beyond turning its text into JSON,
// and never reads the environment by itself.
package clearml

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

// Client calls one ClearML server. Its methods may be called from many
// goroutines. It starts none of its own.
type Client struct {
	config    Config
	log       *slog.Logger
	http      *http.Client
	ownHTTP   bool
	retry     Retry
	name      string
	maxAnswer int64

	session   atomic.Pointer[session]
	loginTurn chan struct{} // of size 1: whoever has put something in logs in, the others wait
	server    atomic.Pointer[ServerInfo]
	ahead     atomic.Int64 // by how many nanoseconds the server's clock is ahead of ours
}

// Options of a Client.
type Options struct {
	Config Config
	Logger *slog.Logger // nil: nothing is logged
	// HTTP makes the requests. Nil: a client of our own, with the configuration's
	// transport. It must not follow redirects of POST.
	HTTP *http.Client
	// ClientName says who calls, like "clearml-serving-1.3.5".
	ClientName string
	Retry      Retry
	// MaxAnswer bounds the bytes of one answer. Default 256 MiB.
	MaxAnswer int64
}

// Retry says how often a call is made again when the server is away or busy.
type Retry struct {
	// Attempts bounds how often a call is made. Default 5, 1 for no repetition.
	Attempts int
	// First is the wait before the second attempt; it doubles from there, with
	// jitter. Default 200 ms.
	First time.Duration
	// Longest bounds one wait, also one that the server asks for. Default 10 s.
	Longest time.Duration
}

// New makes a client. It connects to nothing yet: the first call logs in.
func New(o Options) (*Client, error) {
	if o.Config.API.Value == "" {
		return nil, &NotConfiguredError{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Retry.Attempts <= 0 {
		o.Retry.Attempts = 5
	}
	if o.Retry.First <= 0 {
		o.Retry.First = 200 * time.Millisecond
	}
	if o.Retry.Longest <= 0 {
		o.Retry.Longest = 10 * time.Second
	}
	if o.MaxAnswer <= 0 {
		o.MaxAnswer = 256 << 20
	}
	if o.ClientName == "" {
		o.ClientName = "clearml-serving"
	}
	c := &Client{
		config: o.Config, log: o.Logger, http: o.HTTP, retry: o.Retry, name: o.ClientName,
		maxAnswer: o.MaxAnswer, loginTurn: make(chan struct{}, 1),
	}
	if c.http == nil {
		transport, err := o.Config.NewTransport(5 * time.Minute) // as the SDK: a busy server may take its time
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

// Close ends idle connections. Calls under way are not disturbed.
func (c *Client) Close() {
	if c.ownHTTP {
		c.http.CloseIdleConnections()
	}
}

// Config is the configuration that the client was made with.
func (c *Client) Config() Config { return c.config }

// FilesURL is the address of the file server, "" when none is known.
func (c *Client) FilesURL() string { return c.config.Files.Value }

// ServerInfo is what a server tells about itself.
type ServerInfo struct {
	Version    string   `json:"version"`
	APIVersion string   `json:"api_version"`
	Extensions []string `json:"extensions"` // of our embedded server
}

// Info asks the server about itself, once; later calls give the first answer.
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
