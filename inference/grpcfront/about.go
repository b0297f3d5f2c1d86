package grpcfront

import (
	"cmp"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/inference/grpcfront/pb/repository"
	"clearmlserving/serving"
)

// serverLive answers ServerLive.
func (f *Front) serverLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

// serverReady answers ServerReady.
func (f *Front) serverReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	state, _ := f.core.Readiness("")
	return &pb.ServerReadyResponse{Ready: state.Ready}, nil
}

// serverMetadata answers ServerMetadata.
func (f *Front) serverMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: inference.ServerName, Version: cmp.Or(f.o.Version, "unknown"), Extensions: f.core.Extensions()}, nil
}

// about is the head of a question about a model.
func (f *Front) about(ctx context.Context, name, version string) inference.Head {
	h := f.head(ctx, "")
	h.Endpoint = f.core.Named(name, version)
	return h
}

// modelReady answers ModelReady.
func (f *Front) modelReady(ctx context.Context, q *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	head := f.about(ctx, q.GetName(), q.GetVersion())
	if refused := f.core.AdmitAbout(head); refused != nil && refused.Kind != inference.KindNotReady {
		return nil, f.fail(ctx, refused)
	}
	state, _ := f.core.Readiness(head.Endpoint)
	return &pb.ModelReadyResponse{Ready: state.Ready}, nil
}

// modelMetadata answers ModelMetadata.
func (f *Front) modelMetadata(ctx context.Context, q *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, failure := f.core.ModelMetadata(f.about(ctx, q.GetName(), q.GetVersion()), q.GetName())
	if failure != nil {
		return nil, f.fail(ctx, failure)
	}
	return &pb.ModelMetadataResponse{
		Name: m.Name, Versions: m.Versions, Platform: m.Platform, Inputs: tensorsMetadata(m.Inputs), Outputs: tensorsMetadata(m.Outputs),
	}, nil
}

func tensorsMetadata(tensors []inference.TensorMetadata) []*pb.ModelMetadataResponse_TensorMetadata {
	list := make([]*pb.ModelMetadataResponse_TensorMetadata, len(tensors))
	for i, t := range tensors {
		list[i] = &pb.ModelMetadataResponse_TensorMetadata{Name: valid(t.Name), Datatype: string(t.Datatype), Shape: t.Shape}
	}
	return list
}

// modelConfig answers ModelConfig.
func (f *Front) modelConfig(ctx context.Context, q *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	c, failure := f.core.ModelConfig(f.about(ctx, q.GetName(), q.GetVersion()), q.GetName())
	if failure != nil {
		return nil, f.fail(ctx, failure)
	}
	config := &pb.ModelConfig{Name: c.Name, Platform: c.Platform, Backend: c.Backend, MaxBatchSize: int32(c.MaxBatchSize)} //nolint:gosec // a small number
	for _, t := range c.Input {
		config.Input = append(config.Input, &pb.ModelInput{Name: valid(t.Name), DataType: pb.DataType(pb.DataType_value[t.DataType]), Dims: t.Dims})
	}
	for _, t := range c.Output {
		config.Output = append(config.Output, &pb.ModelOutput{Name: valid(t.Name), DataType: pb.DataType(pb.DataType_value[t.DataType]), Dims: t.Dims})
	}
	return &pb.ModelConfigResponse{Config: config}, nil
}

// modelStatistics answers ModelStatistics: of one model, or of all without a name.
func (f *Front) modelStatistics(ctx context.Context, q *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	var all *inference.Statistics
	if q.GetName() == "" {
		if refused := f.core.AuthorizeService(f.head(ctx, "")); refused != nil {
			return nil, f.fail(ctx, refused)
		}
		all = f.core.AllStatistics()
	} else {
		var failure *inference.Failure
		if all, failure = f.core.ModelStatistics(f.about(ctx, q.GetName(), q.GetVersion()), q.GetName(), q.GetVersion()); failure != nil {
			return nil, f.fail(ctx, failure)
		}
	}
	answer := &pb.ModelStatisticsResponse{}
	for _, m := range all.Models {
		i := m.Inference
		var batches []*pb.InferBatchStatistics
		for _, b := range m.Batches {
			batches = append(batches, &pb.InferBatchStatistics{BatchSize: b.Rows, ComputeInput: spent(b.ComputeInput), ComputeInfer: spent(b.ComputeInfer), ComputeOutput: spent(b.ComputeOutput)})
		}
		answer.ModelStats = append(answer.ModelStats, &pb.ModelStatistics{
			Name: valid(m.Name), Version: valid(m.Version), LastInference: uint64(m.LastInference), InferenceCount: m.InferenceCount, ExecutionCount: m.ExecutionCount, //nolint:gosec // a time after 1970
			InferenceStats: &pb.InferStatistics{
				Success: spent(i.Success), Fail: spent(i.Fail), Queue: spent(i.Queue), ComputeInput: spent(i.ComputeInput), ComputeInfer: spent(i.ComputeInfer),
				ComputeOutput: spent(i.ComputeOutput), CacheHit: spent(i.CacheHit), CacheMiss: spent(i.CacheMiss),
			},
			BatchStats: batches,
		})
	}
	return answer, nil
}

func spent(s inference.Spent) *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: s.Count, Ns: uint64(max(s.NS, 0))}
}

// repositoryIndex answers RepositoryIndex.
func (f *Front) repositoryIndex(ctx context.Context, q *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if refused := f.core.AuthorizeService(f.head(ctx, "")); refused != nil {
		return nil, f.fail(ctx, refused)
	}
	answer := &pb.RepositoryIndexResponse{}
	for _, m := range f.core.ModelIndex(q.GetReady()) {
		answer.Models = append(answer.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: valid(m.Name), Version: valid(m.Version), State: m.State, Reason: valid(m.Reason)})
	}
	return answer, nil
}

// change loads or unloads a model.
func (f *Front) change(ctx context.Context, name string, load bool) error {
	head := f.head(ctx, first(ctx, "x-request-id"))
	head.Endpoint = serving.CleanURL(name)
	if failure := f.core.RepositoryChange(ctx, head, load); failure != nil {
		return f.fail(ctx, failure)
	}
	return nil
}

// repositoryLoad answers RepositoryModelLoad. KServe's clients send the name as the first field.
func (f *Front) repositoryLoad(ctx context.Context, q *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	name := cmp.Or(q.GetModelName(), q.GetRepositoryName())
	for parameter := range q.GetParameters() {
		if inference.OverridesModel(parameter) {
			return nil, status.Error(codes.InvalidArgument, inference.ErrOverride)
		}
	}
	if err := f.change(ctx, name, true); err != nil {
		return nil, err
	}
	return &pb.RepositoryModelLoadResponse{ModelName: name, IsLoaded: true}, nil
}

// repositoryUnload answers RepositoryModelUnload.
func (f *Front) repositoryUnload(ctx context.Context, q *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	name := cmp.Or(q.GetModelName(), q.GetRepositoryName())
	if err := f.change(ctx, name, false); err != nil {
		return nil, err
	}
	return &pb.RepositoryModelUnloadResponse{ModelName: name, IsUnloaded: true}, nil
}

// mlserverIndex answers RepositoryIndex of MLServer's service.
func (f *Front) mlserverIndex(ctx context.Context, q *repository.RepositoryIndexRequest) (*repository.RepositoryIndexResponse, error) {
	all, err := f.repositoryIndex(ctx, &pb.RepositoryIndexRequest{Ready: q.GetReady()})
	if err != nil {
		return nil, err
	}
	answer := &repository.RepositoryIndexResponse{}
	for _, m := range all.GetModels() {
		answer.Models = append(answer.Models, &repository.RepositoryIndexResponse_ModelIndex{Name: m.GetName(), Version: m.GetVersion(), State: m.GetState(), Reason: m.GetReason()})
	}
	return answer, nil
}

// mlserverLoad answers RepositoryModelLoad of MLServer's service.
func (f *Front) mlserverLoad(ctx context.Context, q *repository.RepositoryModelLoadRequest) (*repository.RepositoryModelLoadResponse, error) {
	if err := f.change(ctx, q.GetModelName(), true); err != nil {
		return nil, err
	}
	return &repository.RepositoryModelLoadResponse{}, nil
}

// mlserverUnload answers RepositoryModelUnload of MLServer's service.
func (f *Front) mlserverUnload(ctx context.Context, q *repository.RepositoryModelUnloadRequest) (*repository.RepositoryModelUnloadResponse, error) {
	if err := f.change(ctx, q.GetModelName(), false); err != nil {
		return nil, err
	}
	return &repository.RepositoryModelUnloadResponse{}, nil
}
