package api

import (
	"context"

	"clearmlserving/controlplane/documents"
)

// servingCalls lists the calls of the serving service. Instances report their endpoints with
// them, for the model endpoints page of ClearML's web application. Our pages read the tasks
// of instances instead, so these calls only check a report: what a ClearML server refuses is
// refused here too.
func (s *Server) servingCalls() []callEntry {
	return []callEntry{
		{"serving.register_container", mayWrite, checksContainer("container_id", "endpoint_name", "model_name")},
		{"serving.unregister_container", mayWrite, checksContainer("container_id")},
		{"serving.container_status_report", mayWrite, checksContainer("container_id", "endpoint_name", "model_name", "endpoint_url")},
	}
}

// containerShapes are the fields that describe a container.
var containerShapes = map[string]documents.Shape{
	"container_id": documents.AText, "endpoint_name": documents.AText, "endpoint_url": documents.AText, "model_name": documents.AText, "model_source": documents.AText,
	"model_version": documents.AText, "preprocess_artifact": documents.AText, "input_type": documents.AText, "tags": documents.Tags, "system_tags": documents.Tags, "timeout": documents.ANumber,
	"uptime_sec": documents.ANumber, "requests_num": documents.ANumber, "requests_min": documents.ANumber, "latency_ms": documents.ANumber, "machine_stats": documents.AnObject,
}

// checksContainer answers a call that describes an endpoint of an instance.
func checksContainer(required ...string) handler {
	return typed(func(_ context.Context, _ *Call, req documents.Fields) (none, error) {
		_, err := documents.Take(req, containerShapes, required...)
		return none{}, err
	})
}
