package grpcfront

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
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
			probe("ServerLive", f, (*Front).serverLive),
			probe("ServerReady", f, (*Front).serverReady),
			probe("ServerMetadata", f, (*Front).serverMetadata),
			unary("ModelReady", f, (*Front).modelReady),
			unary("ModelMetadata", f, (*Front).modelMetadata),
			unary("ModelConfig", f, (*Front).modelConfig),
			unary("ModelStatistics", f, (*Front).modelStatistics),
			unary("RepositoryIndex", f, (*Front).repositoryIndex),
			unary("RepositoryModelLoad", f, (*Front).repositoryLoad),
			unary("RepositoryModelUnload", f, (*Front).repositoryUnload),
		},
		Streams: []grpc.StreamDesc{{StreamName: "ModelStreamInfer", Handler: f.streamInfer, ClientStreams: true, ServerStreams: true}},
	}, f)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: repositoryService, HandlerType: (*any)(nil), Metadata: repository.File_repository_model_repository_proto.Path(),
		Methods: []grpc.MethodDesc{
			unary("RepositoryIndex", f, (*Front).mlserverIndex),
			unary("RepositoryModelLoad", f, (*Front).mlserverLoad),
			unary("RepositoryModelUnload", f, (*Front).mlserverUnload),
		},
	}, f)
	healthpb.RegisterHealthServer(s, health{front: f})
}

// message is a pointer to a message of protobuf.
type message[M any] interface {
	*M
	proto.Message
}

// probe is a method that needs no key, as the probes of the front for HTTP clients.
func probe[Q, A any, PQ message[Q], PA message[A]](name string, f *Front, answer func(*Front, context.Context, PQ) (PA, error)) grpc.MethodDesc {
	return method(name, f, func(context.Context) error { return nil }, answer)
}

// unary is a method of protobuf's messages.
func unary[Q, A any, PQ message[Q], PA message[A]](name string, f *Front, answer func(*Front, context.Context, PQ) (PA, error)) grpc.MethodDesc {
	return method(name, f, f.enter, answer)
}

func method[Q, A any, PQ message[Q], PA message[A]](name string, f *Front, enter func(context.Context) error, answer func(*Front, context.Context, PQ) (PA, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, receive func(any) error, _ grpc.UnaryServerInterceptor) (reply any, err error) {
		defer func() {
			if p := recover(); p != nil {
				reply, err = nil, f.panicked(name, p)
			}
		}()
		if err := enter(ctx); err != nil {
			return nil, err
		}
		q := PQ(new(Q))
		in := incoming{message: q}
		if err := f.receive(ctx, receive, &in, func() {}); err != nil {
			return nil, err
		}
		if in.broken != nil {
			return nil, status.Errorf(codes.InvalidArgument, "Error processing request: the message is no %sRequest: its protobuf is broken", name)
		}
		a, err := answer(f, ctx, q)
		if err != nil {
			return nil, err
		}
		return a, nil
	}}
}
