package v2server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	"clearmlserving/inference/grpcfront/pb"
)

const (
	service      = "/inference.GRPCInferenceService/"
	inferMethod  = service + "ModelInfer"
	streamMethod = service + "ModelStreamInfer"
)

// overGRPC is the client of servers over gRPC.
type overGRPC struct {
	requests []*grpc.ClientConn // by the index of the address
	probes   []*grpc.ClientConn // of their own: requests may use up the streams of a connection
	key      string             // the server's key, "" for none
	limit    int                // bytes of an answer
	gzip     bool
	options  []grpc.CallOption
}

// newGRPC prepares the connections; they are made by the first request. trust is nil for connections that
// are not encrypted.
func newGRPC(addresses []string, trust *tls.Config, key string, limit int64, compressed bool) (*overGRPC, error) {
	security := insecure.NewCredentials()
	if trust != nil {
		security = credentials.NewTLS(trust)
	}
	c := &overGRPC{key: key, limit: int(limit), gzip: compressed}
	c.options = []grpc.CallOption{grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(c.limit), grpc.MaxCallSendMsgSize(int(largestMessage))}
	if compressed {
		c.options = append(c.options, grpc.UseCompressor(gzip.Name))
	}
	options := append(remote.GRPC(),
		grpc.WithTransportCredentials(security),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithUserAgent("clearml-serving"),
	)
	for _, address := range addresses {
		for _, list := range []*[]*grpc.ClientConn{&c.requests, &c.probes} {
			conn, err := grpc.NewClient("passthrough:///"+address, options...)
			if err != nil {
				c.close()
				return nil, fmt.Errorf("address %q: %w", address, err)
			}
			*list = append(*list, conn)
		}
	}
	return c, nil
}

// gRPC's servers cut a client that pings more often than every 5 minutes, unless they allow it: the probes
// find out sooner.
const (
	pingInterval = 6 * time.Minute
	pingTimeout  = 20 * time.Second
)

// largestMessage is the most that gRPC can send.
const largestMessage = 1<<31 - 1

func (c *overGRPC) close() {
	for _, list := range [][]*grpc.ClientConn{c.requests, c.probes} {
		for _, conn := range list {
			_ = conn.Close() // an error says that it is closed
		}
	}
}

// outgoing adds the metadata of a request.
func (c *overGRPC) outgoing(ctx context.Context, trace string) context.Context {
	if c.key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.key)
	}
	if trace != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", trace)
	}
	return ctx
}

// ready implements client. The connection for requests is there too when it returns nil.
func (c *overGRPC) ready(ctx context.Context, index int) error {
	var r pb.ServerReadyResponse
	if err := c.probes[index].Invoke(c.outgoing(ctx, ""), service+"ServerReady", &pb.ServerReadyRequest{}, &r); err != nil {
		return errors.New(grpcWords(err))
	}
	if !r.Ready {
		return errors.New("it answers that it is not ready")
	}
	conn := c.requests[index]
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return errors.New("there is no connection for requests")
		}
	}
	return nil
}

// describe implements client.
func (c *overGRPC) describe(ctx context.Context, use *remote.Use, model, version string) (d description, err error) {
	conn, ctx := c.requests[use.Index()], c.outgoing(ctx, "")
	var r pb.ModelReadyResponse
	if err := c.call(ctx, conn, "ModelReady", &pb.ModelReadyRequest{Name: model, Version: version}, &r); err != nil {
		return d, err
	}
	if !r.Ready {
		return d, &Refusal{Code: codes.Unavailable, Text: fmt.Sprintf("model '%s' is not ready", model)}
	}
	var m pb.ModelMetadataResponse
	if err := c.call(ctx, conn, "ModelMetadata", &pb.ModelMetadataRequest{Name: model, Version: version}, &m); err != nil {
		return d, err
	}
	for _, t := range m.Inputs {
		d.inputs = append(d.inputs, tensorSpec(t.Name, t.Datatype, t.Shape))
	}
	for _, t := range m.Outputs {
		d.outputs = append(d.outputs, tensorSpec(t.Name, t.Datatype, t.Shape))
	}
	var config pb.ModelConfigResponse // only Triton, and servers like it, have it
	if err := c.call(ctx, conn, "ModelConfig", &pb.ModelConfigRequest{Name: model, Version: version}, &config); err == nil {
		d.decoupled = config.GetConfig().GetModelTransactionPolicy().GetDecoupled()
	}
	return d, nil
}

// call calls a method without tensors. Its errors are marked.
func (c *overGRPC) call(ctx context.Context, conn *grpc.ClientConn, method string, request, response any) error {
	var e ended
	err := conn.Invoke(ctx, service+method, request, response, e.options(nil)...)
	return e.judge(ctx.Err(), err)
}

// infer implements client.
func (c *overGRPC) infer(ctx context.Context, use *remote.Use, q *question, trace string) (*answer, error) {
	ctx = c.outgoing(ctx, trace)
	var e ended
	a := &answer{}
	if err := c.requests[use.Index()].Invoke(ctx, inferMethod, q, a, e.options(c.options)...); err != nil {
		return nil, e.judge(ctx.Err(), err)
	}
	if a.broken != nil {
		return nil, remote.Broken(&Garbage{a.broken})
	}
	return a, nil
}

// stream implements client. Its errors are marked.
func (c *overGRPC) stream(ctx context.Context, use *remote.Use, q *question, trace string) (*answers, error) {
	ctx, cancel := context.WithCancel(c.outgoing(ctx, trace))
	s := &answers{cancel: cancel, over: ctx.Err}
	fail := func(err error) (*answers, error) {
		cancel()
		return nil, err
	}
	var err error
	s.stream, err = c.requests[use.Index()].NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, streamMethod, s.e.options(c.options)...)
	if err != nil {
		return fail(s.e.judge(ctx.Err(), err))
	}
	if err := s.stream.SendMsg(q); err != nil && !errors.Is(err, io.EOF) { // else RecvMsg has the reason
		return fail(s.e.judge(ctx.Err(), err))
	}
	if err := s.stream.CloseSend(); err != nil {
		return fail(s.e.judge(ctx.Err(), err))
	}
	return s, nil
}

// answers are those of one request of a stream.
type answers struct {
	stream grpc.ClientStream
	cancel context.CancelFunc
	over   func() error // the end of the request; the context of the stream ends with each error
	e      ended
}

// next is the next piece, or io.EOF. Its errors are marked.
func (s *answers) next() (*piece, error) {
	p := &piece{}
	err := s.stream.RecvMsg(p)
	if err == nil {
		return p, nil
	}
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	return nil, s.e.judge(s.over(), err)
}

// ended tells after a call whether the request reached a server, and whether the server has answered.
type ended struct {
	peer            peer.Peer
	header, trailer metadata.MD
}

func (e *ended) options(others []grpc.CallOption) []grpc.CallOption {
	return append(append(make([]grpc.CallOption, 0, len(others)+3), others...), grpc.Peer(&e.peer), grpc.Header(&e.header), grpc.Trailer(&e.trailer))
}

// judge marks an error of gRPC. over is the error of the request's context, which tells nothing about the server.
// An error that the server has answered is a *Refusal.
func (e *ended) judge(over, err error) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	answered := len(e.header) > 0 || len(e.trailer) > 0
	switch {
	case over != nil:
		return over
	case s.Code() == codes.ResourceExhausted && (!answered || strings.HasPrefix(s.Message(), "grpc: ")): // of this client
		return &engine.Error{Kind: engine.KindTooLarge, Text: "the message is too large: " + s.Message()}
	case s.Code() == codes.DeadlineExceeded: // at the server, a moment before
		return context.DeadlineExceeded
	case answered:
		return refusal(s.Code(), s.Message())
	case e.peer.Addr == nil:
		return remote.NotBegun(errors.New(grpcWords(err)))
	case s.Code() == codes.Unavailable:
		return remote.Broken(errors.New(grpcWords(err)))
	}
	return remote.Broken(&Garbage{errors.New(grpcWords(err))})
}

// grpcWords is the text of an error of gRPC, without the layers of its library.
func grpcWords(err error) string {
	s := status.Convert(err)
	text := s.Message()
	if _, quoted, ok := strings.Cut(text, `desc = "`); ok {
		if inner, err := strconv.Unquote(`"` + strings.TrimSuffix(quoted, `"`) + `"`); err == nil {
			text = inner
		}
	}
	for _, layer := range []string{"transport: ", "Error while dialing: "} {
		text = strings.TrimPrefix(text, layer)
	}
	if s.Code() == codes.Unavailable || s.Code() == codes.Unknown {
		return text
	}
	return fmt.Sprintf("%s: %s", s.Code(), text)
}
