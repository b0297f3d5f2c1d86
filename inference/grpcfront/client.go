package grpcfront

import (
	"context"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"clearmlserving/inference/engine"
)

// client describes the client of a request, for user code that wants to see it.
func (f *Front) client(ctx context.Context) func() engine.Client {
	return func() engine.Client {
		c := engine.Client{Method: "POST"} // every gRPC request is one
		if s := grpc.ServerTransportStreamFromContext(ctx); s != nil {
			c.Path = s.Method()
		}
		if p, ok := peer.FromContext(ctx); ok {
			c.Address = p.Addr.String()
			if host, _, err := net.SplitHostPort(c.Address); err == nil {
				c.Address = host
			}
		}
		fields, _ := metadata.FromIncomingContext(ctx)
		for name, values := range fields {
			if strings.HasPrefix(name, ":") || strings.HasSuffix(name, "-bin") {
				continue
			}
			for _, value := range values {
				if value, shown := f.core.Shown(name, value); shown {
					c.Header = append(c.Header, engine.Header{Name: name, Value: value})
				}
			}
		}
		return c
	}
}
