package remote

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// The pauses between two attempts of gRPC to connect: those of its library grow to two minutes, and a server that is back
// must be found within 5 s.
const (
	firstAttempt   = 50 * time.Millisecond
	longestAttempt = 500 * time.Millisecond
)

// GRPC are the options of gRPC for connections to servers.
func GRPC() []grpc.DialOption {
	dialer := Dialer()
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: firstAttempt, Multiplier: 2, Jitter: 0.2, MaxDelay: longestAttempt}, MinConnectTimeout: connectTimeout,
		}),
		grpc.WithNoProxy(),
	}
}
