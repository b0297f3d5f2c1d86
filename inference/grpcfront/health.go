package grpcfront

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/serving"
)

// health is the health service of gRPC. The services of this server, and "", are the instance;
// other names are endpoints.
type health struct {
	healthpb.UnimplementedHealthServer

	front *Front
}

// stateOf is the state of a service, known to clients with a key for it.
func (h health) stateOf(ctx context.Context, service string) (healthpb.HealthCheckResponse_ServingStatus, *inference.Failure) {
	endpoint := serving.CleanURL(service)
	switch service {
	case "", inferenceService, repositoryService, healthpb.Health_ServiceDesc.ServiceName:
		endpoint = ""
	default:
		head := h.front.head(ctx, "")
		head.Endpoint = endpoint
		if refused := h.front.core.Authorize(head); refused != nil {
			return 0, refused
		}
	}
	state, known := h.front.core.Readiness(endpoint)
	switch {
	case !known:
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN, nil
	case state.Ready:
		return healthpb.HealthCheckResponse_SERVING, nil
	}
	return healthpb.HealthCheckResponse_NOT_SERVING, nil
}

// Check implements healthpb.HealthServer.
func (h health) Check(ctx context.Context, q *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	state, refused := h.stateOf(ctx, q.GetService())
	if refused != nil {
		return nil, h.front.fail(ctx, refused)
	}
	if state == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Errorf(codes.NotFound, "unknown service: endpoint '%s' is not configured", valid(q.GetService()))
	}
	return &healthpb.HealthCheckResponse{Status: state}, nil
}

// List implements healthpb.HealthServer: the services of this server, and for clients with a key for all
// endpoints also those.
func (h health) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	state, _ := h.stateOf(ctx, "")
	whole := &healthpb.HealthCheckResponse{Status: state}
	all := map[string]*healthpb.HealthCheckResponse{"": whole, inferenceService: whole, repositoryService: whole}
	if h.front.core.AuthorizeService(h.front.head(ctx, "")) == nil {
		for _, e := range h.front.core.Status().Endpoints {
			state, _ := h.stateOf(ctx, string(e.URL))
			all[valid(string(e.URL))] = &healthpb.HealthCheckResponse{Status: state}
		}
	}
	return &healthpb.HealthListResponse{Statuses: all}, nil
}

// watchEvery is how often a watched state is looked at.
const watchEvery = time.Second

// Watch implements healthpb.HealthServer: it sends each change of the state, until the client leaves
// or the instance stops.
func (h health) Watch(q *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	ctx := stream.Context()
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	last := healthpb.HealthCheckResponse_UNKNOWN
	for {
		state, refused := h.stateOf(ctx, q.GetService())
		if refused != nil {
			return h.front.fail(ctx, refused)
		}
		if state != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
			last = state
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-h.front.stopping:
			return status.Error(codes.Unavailable, "the instance is stopping")
		case <-ticker.C:
		}
	}
}
