// Package grpcfront is the front for gRPC clients: the Open Inference Protocol (V2) with the
// extensions of Triton, KServe and MLServer, the health service of gRPC, and reflection. It owns its
// socket and everything that is specific to gRPC: metadata, codes, messages. The core decides about
// access and answers; the rules for tensors are those of package v2.
package grpcfront

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"

	"clearmlserving/inference"
	"clearmlserving/tracing"
)

// Options of a Front.
type Options struct {
	// Listener accepts clients' connections; the Front closes it.
	Listener net.Listener
	// Tracer traces the requests, nil for none.
	Tracer *tracing.Tracer
	// StopTimeout bounds running requests after the end of Run's context and the DrainDelay. 0: they are cut at once.
	StopTimeout time.Duration
	// DrainDelay is how long requests are still accepted after the end of Run's context, while the
	// health service already answers "not serving". Default 0: none.
	DrainDelay time.Duration
	// MaxBody bounds a message, as sent and decompressed. Default 256 MiB.
	MaxBody int64
	// MaxConnections bounds the clients' open connections. 0: only the machine's limit.
	MaxConnections int
	// Version is this server's, for its metadata.
	Version string
	Logger  *slog.Logger
}

// Front serves gRPC clients. It implements inference.Front.
type Front struct {
	o    Options
	core *inference.Service
	// stopping ends the streams that wait. It is closed by Run.
	stopping chan struct{}
	// patience is how long a client may read nothing of what is sent to it.
	patience time.Duration
}

// New prepares a front of core; Run starts it.
func New(core *inference.Service, o Options) *Front {
	o.MaxBody = cmp.Or(o.MaxBody, 256<<20)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return &Front{o: o, core: core, stopping: make(chan struct{}), patience: writeTimeout}
}

const (
	maxStreams    = 256 // requests of one connection at the same time
	maxHeader     = 64 << 10
	greetTimeout  = 10 * time.Second // for the handshakes of TLS and HTTP/2
	idleTimeout   = 10 * time.Minute // of a connection without a request
	pingAfter     = 30 * time.Second // without a frame from the client
	pingTimeout   = 15 * time.Second
	pingsAtMost   = 5 * time.Second // a client that pings more often is told to calm down, and cut
	socketBuffers = 64 << 10
	streamWorkers = 64 // goroutines that keep their stacks from request to request; more are started as needed
	// connectionWindow is large, because what is kept is bounded by the streams' windows.
	connectionWindow = 16 << 20
)

// server is the gRPC server with all services.
func (f *Front) server() *grpc.Server {
	s := grpc.NewServer(
		grpc.ForceServerCodecV2(newCodec(f.o.MaxBody)),
		grpc.MaxRecvMsgSize(int(f.o.MaxBody)),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.ConnectionTimeout(greetTimeout),
		grpc.ReadBufferSize(socketBuffers),
		grpc.WriteBufferSize(socketBuffers),
		grpc.StaticConnWindowSize(connectionWindow), // a stream has 64 kB, and more only for a message that is awaited
		grpc.WaitForHandlers(true),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsAtMost, PermitWithoutStream: true}),
	)
	f.register(s)
	reflection.Register(s)
	return s
}

// Run serves until ctx ends. It then continues for DrainDelay, stops accepting, and finishes running
// requests. It implements inference.Front.
func (f *Front) Run(ctx context.Context) error {
	server := f.server()
	ended := make(chan error, 1) // the result of Serve
	go func() { ended <- server.Serve(f.guard(f.o.Listener)) }()
	select {
	case err := <-ended:
		close(f.stopping)
		server.Stop()
		return err
	case <-ctx.Done():
	}
	if f.o.DrainDelay > 0 && !errors.Is(context.Cause(ctx), inference.ErrBroken) {
		timer := time.NewTimer(f.o.DrainDelay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case err := <-ended:
			close(f.stopping)
			server.Stop()
			return err
		}
	}
	close(f.stopping)
	timer := time.AfterFunc(f.o.StopTimeout, func() {
		f.o.Logger.Warn("gRPC requests were cut at stop", "after", f.o.StopTimeout)
		server.Stop()
	})
	defer timer.Stop()
	server.GracefulStop()
	return <-ended
}

// enter refuses a request without a valid key before its message is read. The endpoint is in the
// message, so the key is checked again with it.
func (f *Front) enter(ctx context.Context) error {
	if refused := f.core.Recognize(f.head(ctx, "")); refused != nil {
		return f.fail(ctx, refused)
	}
	return nil
}

// head is the head of a question about an endpoint, by the metadata of its request.
func (f *Front) head(ctx context.Context, id string) inference.Head {
	h := inference.Head{ID: id}
	if f.core.KeysRequired() {
		h.Key = inference.BearerKey(first(ctx, "authorization"))
	}
	return h
}

// first is the first value of a field of the metadata, "" without one.
func first(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// panicked answers a request whose handler panics: it costs the request, not the process.
func (f *Front) panicked(method string, p any) error {
	f.o.Logger.Error("request panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
	return statusOf(&inference.Failure{Kind: inference.KindInternal, Text: "Internal Server Error"}).Err()
}
