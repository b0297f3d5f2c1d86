package grpcfront_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/serving"
)

// keyRing is the access section of a configuration that requires keys.
type keyRing struct{ records map[string]any }

func newKeyRing() *keyRing {
	return &keyRing{map[string]any{"service": map[string]any{"required": true}}}
}

func (k *keyRing) add(id string, expires time.Time, endpoints ...string) string {
	secret, _ := serving.NewAccessKey()
	record := map[string]any{"sha256": serving.DigestOf(secret).String(), "endpoints": endpoints}
	if !expires.IsZero() {
		record["expires"] = expires.UTC().Format(time.RFC3339)
	}
	k.records[id] = record
	return secret
}

// with adds the keys to the configuration of an instance under test.
func (k *keyRing) with(t *testing.T) func(*inference.Options, *grpcfront.Options) {
	t.Helper()
	text, err := json.Marshal(k.records)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *inference.Options, _ *grpcfront.Options) {
		o.Source.(fixedSource).state.Sections[serving.SectionAccess] = text //nolint:forcetypeassert // start made it
	}
}

func TestARequestThatNeedsAKeyShowsOne(t *testing.T) {
	keys := newKeyRing()
	all, echo := keys.add("all", time.Time{}), keys.add("echo", time.Time{}, "echo")
	expired := keys.add("expired", time.Now().Add(-time.Hour))
	unknown, _ := serving.NewAccessKey()
	r := start(t, keys.with(t), "echo", "seen")
	for _, tc := range []struct {
		name, model, header string
		code                codes.Code
		challenge, text     string
	}{
		{"no key", "echo", "", codes.Unauthenticated, `Bearer realm="clearml-serving"`, "Not authenticated: send a key"},
		{"another scheme", "echo", "Basic " + all, codes.Unauthenticated, `Bearer realm="clearml-serving"`, "Not authenticated"},
		{"unknown", "echo", "Bearer " + unknown, codes.Unauthenticated, `error="invalid_token"`, "not known"},
		{"expired", "echo", "Bearer " + expired, codes.Unauthenticated, `error="invalid_token"`, "The key expired has expired"},
		{"for another endpoint", "seen", "Bearer " + echo, codes.PermissionDenied, `error="insufficient_scope"`, "The key echo is for other endpoints"},
		{"for a missing endpoint", "nobody", "Bearer " + echo, codes.PermissionDenied, `error="insufficient_scope"`, "The key echo is for other endpoints"},
		{"its key", "echo", "bearer " + echo, codes.OK, "", ""},
		{"a key for all", "seen", "Bearer " + all, codes.OK, "", ""},
		{"an endpoint that is not there", "nobody", "Bearer " + all, codes.NotFound, "", "not found"},
	} {
		ctx := context.Background()
		if tc.header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", tc.header)
		}
		var trailer metadata.MD
		err := r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", floats(tc.model, 1, 2), new(pb.ModelInferResponse), grpc.Trailer(&trailer))
		is(t, tc.name, err, tc.code, tc.text)
		if got := strings.Join(trailer["www-authenticate"], ", "); !strings.Contains(got, tc.challenge) || tc.challenge == "" && got != "" {
			t.Errorf("%s: challenge %q, want %q", tc.name, got, tc.challenge)
		}
		err = r.Invoke(ctx, "/inference.GRPCInferenceService/ModelReady", &pb.ModelReadyRequest{Name: tc.model}, new(pb.ModelReadyResponse))
		is(t, tc.name+": ready", err, tc.code, tc.text)
	}
}

func TestARequestWithoutAKeyIsRefusedBeforeItsMessage(t *testing.T) {
	keys := newKeyRing()
	one := keys.add("one", time.Time{}, "echo")
	r := start(t, keys.with(t), "echo")
	s := r.stream(t) // no message is sent
	_, err := next(t, s)
	is(t, "a stream", err, codes.Unauthenticated, "Not authenticated")
	// Probes and what every server of the protocol tells need none.
	for method, answer := range map[string]any{"ServerLive": new(pb.ServerLiveResponse), "ServerReady": new(pb.ServerReadyResponse)} {
		if err := r.call(t, method, &pb.ServerLiveRequest{}, answer); err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	health := healthpb.NewHealthClient(r)
	if got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", got, err)
	}
	for _, name := range []string{"echo", "nobody"} { // which endpoints there are is not told
		_, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		is(t, "the health of "+name, err, codes.Unauthenticated, "Not authenticated")
	}
	for _, method := range []string{"ModelReady", "ModelMetadata", "ModelInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"} {
		err := r.call(t, method, &pb.ServerLiveRequest{}, new(pb.ServerLiveResponse))
		is(t, method, err, codes.Unauthenticated, "Not authenticated")
	}
	for _, method := range []string{"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"} {
		err := r.Invoke(t.Context(), "/inference.model_repository.ModelRepositoryService/"+method, &pb.ServerLiveRequest{}, new(pb.ServerLiveResponse))
		is(t, method, err, codes.Unauthenticated, "Not authenticated")
	}
	// A key for some endpoints is not one for the whole service.
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+one)
	for _, method := range []string{"ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"} {
		err := r.Invoke(ctx, "/inference.GRPCInferenceService/"+method, &pb.ServerLiveRequest{}, new(pb.ServerLiveResponse))
		is(t, method, err, codes.PermissionDenied, "for other endpoints")
	}
	if code := status.Code(r.call(t, "NoSuchMethod", &pb.ServerLiveRequest{}, new(pb.ServerLiveResponse))); code != codes.Unimplemented && code != codes.Unauthenticated {
		t.Error(code)
	}
}
