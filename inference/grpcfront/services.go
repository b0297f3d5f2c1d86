package grpcfront

import (
	"context"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/inference/grpcfront/pb/repository"
)

// The names of the services, as paths of methods begin.
const (
	inferenceService  = "inference.GRPCInferenceService"
	repositoryService = "inference.model_repository.ModelRepositoryService"
)

// register adds the services. Their methods are listed here instead of generated code, because
// the messages of inference are read by hand.
func (f *Front) register(s *grpc.Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: inferenceService, HandlerType: (*any)(nil), Metadata: pb.File_open_inference_proto.Path(),
		Methods: []grpc.MethodDesc{
			{MethodName: "ModelInfer", Handler: f.infer},
			unary("ServerLive", f, (*Front).serverLive),
			unary("ServerReady", f, (*Front).serverReady),
			unary("ModelReady", f, (*Front).modelReady),
		},
		Streams: []grpc.StreamDesc{{StreamName: "ModelStreamInfer", Handler: f.streamInfer, ClientStreams: true, ServerStreams: true}},
	}, f)
	healthpb.RegisterHealthServer(s, health{front: f})
	_ = repository.File_repository_model_repository_proto
}

// message is a pointer to a message of protobuf.
type message[M any] interface {
	*M
	proto.Message
}

// unary is a method of protobuf's messages.
func unary[Q, A any, PQ message[Q], PA message[A]](name string, f *Front, answer func(*Front, context.Context, PQ) (PA, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (reply any, err error) {
		defer func() {
			if p := recover(); p != nil {
				reply, err = nil, f.panicked(name, p)
			}
		}()
		q := PQ(new(Q))
		if err := receive(q); err != nil {
			return nil, f.unread(err)
		}
		a, err := answer(f, ctx, q)
		if err != nil {
			return nil, err
		}
		return a, nil
	}}
}
