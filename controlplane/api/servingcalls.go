package api

import "context"

// servingCalls lists the calls of the serving service. The SDK's and our instances report
// their endpoints with them, for the model endpoints page of ClearML's web application.
// Our pages read what instances keep in their tasks, so that these calls only check what
// they are given: a report that a ClearML server refuses is refused here too.
func (s *Server) servingCalls() []callEntry {
	return []callEntry{
		{"serving.register_container", mayWrite, typed(s.registerContainer)},
		{"serving.unregister_container", mayWrite, typed(s.unregisterContainer)},
		{"serving.container_status_report", mayWrite, typed(s.reportContainer)},
	}
}

// containerShapes are the fields that describe a container.
var containerShapes = map[string]shape{
	"container_id": aText, "endpoint_name": aText, "endpoint_url": aText, "model_name": aText, "model_source": aText,
	"model_version": aText, "preprocess_artifact": aText, "input_type": aText, "tags": tags, "system_tags": tags, "timeout": aNumber,
	"uptime_sec": aNumber, "requests_num": aNumber, "requests_min": aNumber, "latency_ms": aNumber, "machine_stats": anObject,
}

// checkContainer checks a description of an endpoint of an instance.
func checkContainer(req Fields, required ...string) error {
	fields, err := take(req, containerShapes)
	if err != nil {
		return err
	}
	for _, key := range required {
		if asText(fields[key]) == "" {
			return missing(key)
		}
	}
	return nil
}

func (s *Server) registerContainer(_ context.Context, _ *Call, req Fields) (none, error) {
	return none{}, checkContainer(req, "container_id", "endpoint_name", "model_name")
}

func (s *Server) reportContainer(_ context.Context, _ *Call, req Fields) (none, error) {
	return none{}, checkContainer(req, "container_id", "endpoint_name", "model_name", "endpoint_url")
}

func (s *Server) unregisterContainer(_ context.Context, _ *Call, req Fields) (none, error) {
	return none{}, checkContainer(req, "container_id")
}
