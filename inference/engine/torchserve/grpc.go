package torchserve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
)

// The methods of TorchServe's own service for inference.
const (
	predictions       = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
	streamPredictions = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions"
	pingMethod        = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
)

// dial prepares the connections to a server. Connections are made when they are needed.
func dial(address string, limit int64) (*grpc.ClientConn, error) {
	secure := insecure.NewCredentials()
	if host, found := strings.CutPrefix(address, "https://"); found {
		address, secure = host, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	most := int(min(limit, 2<<30-1))
	return grpc.NewClient("passthrough:///"+address, append(remote.GRPC(), grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(plainCodec{}), grpc.MaxCallRecvMsgSize(most), grpc.MaxCallSendMsgSize(most)))...)
}

// plainCodec sends messages as they are: []byte is encoded already, and *[]byte gets an encoded message.
type plainCodec struct{}

func (plainCodec) Name() string { return "proto" }

func (plainCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("a %T is no message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(message)}, nil
}

func (plainCodec) Unmarshal(data mem.BufferSlice, v any) error {
	to, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T is no message", v)
	}
	*to = data.Materialize()
	return nil
}

// request encodes a PredictionsRequest with one input, which has the name of a body over REST.
func request(name, version string, body []byte) []byte {
	entry := protowire.SizeTag(1) + protowire.SizeBytes(len(bodyInput)) + protowire.SizeTag(2) + protowire.SizeBytes(len(body))
	b := make([]byte, 0, entry+len(name)+len(version)+32)
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), name)
	if version != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), version)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.BytesType), uint64(entry)) //nolint:gosec // a length
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), bodyInput)
	return protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), body)
}

const bodyInput = "body"

// prediction decodes the first field of a message: the bytes of a PredictionResponse, the text of a health.
func prediction(message []byte) (body []byte, err error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		message = message[n:]
		if number == 1 && kind == protowire.BytesType {
			if body, n = protowire.ConsumeBytes(message); n < 0 {
				return nil, protowire.ParseError(n)
			}
		} else if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return nil, protowire.ParseError(n)
		}
		message = message[n:]
	}
	return body, nil
}

// message is an encoded message.
type message []byte

// number adds a field, if it is not 0.
func (b *message) number(field protowire.Number, value int) {
	if value > 0 {
		*b = protowire.AppendVarint(protowire.AppendTag(*b, field, protowire.VarintType), uint64(value))
	}
}

func (b *message) text(field protowire.Number, value string) {
	*b = protowire.AppendString(protowire.AppendTag(*b, field, protowire.BytesType), value)
}

const management = "/org.pytorch.serve.grpc.management.ManagementAPIsService/"

// admin calls the management API over gRPC. The error is a *refusal if the server has answered one.
func (s *server) admin(ctx context.Context, method string, b message) error {
	conn, err := dial(s.Admin, mostAPI)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is sent any more
	return s.keys.with(ctx, forManagement, func(key string) (refusedKey bool, err error) {
		var reply []byte
		err = conn.Invoke(withKey(ctx, key), management+method, []byte(b), &reply)
		switch code := status.Code(err); {
		case err == nil:
			return false, nil
		case code == codes.Unavailable || ctx.Err() != nil:
			return false, fmt.Errorf("TorchServe's management API at %s: %w", s.Admin, err)
		default:
			return code == codes.PermissionDenied, refusalIn(err)
		}
	})
}

// refusalIn reads an error of the server: its words, and on a second line the class of Java.
func refusalIn(err error) *refusal {
	st, _ := status.FromError(err)
	words, kind, _ := strings.Cut(st.Message(), "\n")
	r := &refusal{Status: statusOf(st.Code()), Message: words, Type: kind[strings.LastIndexByte(kind, '.')+1:]}
	switch {
	case st.Code() == codes.PermissionDenied:
		r.Type = "InvalidKeyException"
	case st.Code() == codes.NotFound || strings.HasPrefix(words, "Model not found:"):
		r.Type = "ModelNotFoundException"
	}
	return r
}

// withKey adds what TorchServe wants to know of a call.
func withKey(ctx context.Context, key string) context.Context {
	if key == "" {
		return metadata.AppendToOutgoingContext(ctx, "protocol", "gRPC")
	}
	return metadata.AppendToOutgoingContext(ctx, "protocol", "gRPC", "authorization", "Bearer "+key)
}

// askGRPC asks over gRPC. A model whose setting is stream answers in pieces.
func (m *model) askGRPC(ctx context.Context, body []byte) (answer *engine.Response, err error) {
	message := request(m.name, m.version, body)
	err = m.pool.Do(ctx, func(ctx context.Context, use *remote.Use) error {
		answer, err = m.callGRPC(ctx, use, message)
		return err
	})
	return answer, err
}

func (m *model) callGRPC(ctx context.Context, use *remote.Use, message []byte) (*engine.Response, error) {
	s := m.servers[use.Index()]
	var answer *engine.Response
	err := s.keys.with(ctx, forInference, func(key string) (refusedKey bool, err error) {
		if m.settings.Stream {
			answer, err = m.openStream(withKey(ctx, key), use, message)
		} else {
			var reply []byte
			err = m.conns[use.Index()].Invoke(withKey(ctx, key), predictions, message, &reply)
			if err == nil {
				answer, err = m.answerGRPC(reply)
			}
		}
		return status.Code(err) == codes.PermissionDenied, err
	})
	return answer, m.failureGRPC(ctx, s, err)
}

func (m *model) answerGRPC(reply []byte) (*engine.Response, error) {
	body, err := prediction(reply)
	if err != nil {
		return nil, remote.Broken(m.at(engine.KindInternal, err, "TorchServe's answer cannot be read"))
	}
	return &engine.Response{Status: 200, ContentType: typeOf(body), Body: body}, nil
}

// failureGRPC says what an error of a call means.
func (m *model) failureGRPC(ctx context.Context, s *server, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*engine.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*keyError](err); ok {
		return err
	}
	st, ok := status.FromError(err)
	if !ok || ctx.Err() != nil {
		return m.cut(ctx, err)
	}
	if st.Code() == codes.Unavailable {
		if strings.Contains(st.Message(), "connect") { // nothing has been sent
			return remote.NotBegun(m.at(engine.KindUnavailable, err, "TorchServe cannot be reached"))
		}
		return remote.Broken(m.at(engine.KindDied, err, "TorchServe ended before its answer"))
	}
	return m.refused(s, refusalIn(err))
}

func statusOf(code codes.Code) int {
	switch code {
	case codes.InvalidArgument:
		return 400
	case codes.PermissionDenied, codes.Unauthenticated:
		return 403
	case codes.NotFound:
		return 404
	case codes.ResourceExhausted:
		return 507
	case codes.DeadlineExceeded:
		return 408
	}
	return 500
}

// openStream begins a call with an answer in pieces, and waits for the first one.
func (m *model) openStream(ctx context.Context, use *remote.Use, message []byte) (*engine.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := m.conns[use.Index()].NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, streamPredictions)
	if err == nil {
		err = stream.SendMsg(message)
	}
	if err == nil || errors.Is(err, io.EOF) { // io.EOF: the error comes with the answer
		err = nil
	}
	p := &pieces{m: m, stream: stream, cancel: cancel, s: m.servers[use.Index()], ctx: ctx}
	if err == nil {
		if closeErr := stream.CloseSend(); closeErr != nil {
			err = closeErr
		}
	}
	if err == nil {
		p.first, err = p.receive()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		cancel()
		return nil, err
	}
	p.ended = err != nil
	use.Hold()
	held := *use
	p.use = &held
	if p.ended {
		p.finish(nil)
	}
	return &engine.Response{Status: 200, Stream: p, ContentType: typeOf(p.first)}, nil
}

// pieces are an answer of StreamPredictions.
type pieces struct {
	m      *model
	s      *server
	ctx    context.Context //nolint:containedctx // that of the call
	stream grpc.ClientStream
	cancel context.CancelFunc
	use    *remote.Use
	first  []byte
	given  bool
	ended  bool
	closed bool
}

func (p *pieces) receive() ([]byte, error) {
	var reply []byte
	if err := p.stream.RecvMsg(&reply); err != nil {
		return nil, err
	}
	body, err := prediction(reply)
	if err != nil {
		return nil, remote.Broken(p.m.at(engine.KindInternal, err, "TorchServe's answer cannot be read"))
	}
	return body, nil
}

// Next implements engine.Stream.
func (p *pieces) Next(context.Context) ([]byte, error) {
	if !p.given && !p.ended {
		p.given = true
		return p.first, nil
	}
	if p.ended || p.closed {
		return nil, io.EOF
	}
	piece, err := p.receive()
	switch {
	case err == nil:
		p.use.Progress()
		return piece, nil
	case errors.Is(err, io.EOF):
		p.ended = true
		p.finish(nil)
		return nil, io.EOF
	}
	err = p.m.failureGRPC(p.ctx, p.s, err)
	p.ended = true
	p.finish(err)
	return nil, err
}

func (p *pieces) finish(err error) {
	if !p.closed {
		p.closed = true
		p.cancel()
		p.use.End(err)
	}
}

// Close implements engine.Stream.
func (p *pieces) Close() error {
	p.finish(nil)
	return nil
}
