package operations_test

import (
	"testing"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// Code of one url never takes the place of another's, or of code that must change at the
// same moment as the record.
func TestCodeOfAUrlGetsTheOriginalsArtifactWhileItIsFree(t *testing.T) {
	const hash = "0123456789abcdef"
	apart := func(string) bool { return true }
	together := func(string) bool { return false }
	for _, tc := range []struct {
		name      string
		config    serving.Service
		stored    string // hash of the artifact that is there
		keepApart func(string) bool
		want      string
	}{
		{"nothing is there", serving.Service{}, "", together, "py_code_a_b"},
		{"the url's own", serving.Service{Endpoints: map[string]serving.Endpoint{"/a/b/": {PreprocessArtifact: "py_code_a_b"}}}, "old", together, "py_code_a_b"},
		{"the url's own, to be kept apart", serving.Service{}, "old", apart, "py_code_a_b_01234567"},
		{"the same code needs no other", serving.Service{}, hash, apart, "py_code_a_b"},
		{"another endpoint's", serving.Service{Endpoints: map[string]serving.Endpoint{"a_b": {PreprocessArtifact: "py_code_a_b"}}}, hash, together, "py_code_a_b_01234567"},
		{"a monitoring's", serving.Service{Monitoring: map[string]serving.Monitoring{"a_b": {PreprocessArtifact: "py_code_a_b"}}}, "", together, "py_code_a_b_01234567"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := operations.Service{Config: tc.config, Doc: &clearml.Service{Artifacts: map[string]clearml.Artifact{}}}
			if tc.stored != "" {
				s.Doc.Artifacts["py_code_a_b"] = clearml.Artifact{Hash: tc.stored}
			}
			if got := s.ArtifactName("a/b", hash, tc.keepApart); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// What is in use is not deleted: no client is there to delete with.
func TestCodeInUseIsNotDropped(t *testing.T) {
	used := serving.Endpoint{PreprocessArtifact: "code"}
	for name, config := range map[string]serving.Service{
		"by an endpoint":          {Endpoints: map[string]serving.Endpoint{"a": used}},
		"by a monitoring":         {Monitoring: map[string]serving.Monitoring{"a": {PreprocessArtifact: "code"}}},
		"by a monitored endpoint": {MonitoringEndpoints: map[string]serving.Endpoint{"a/1": used}},
		"perhaps by a broken one": {Broken: []serving.BrokenRecord{{Section: serving.SectionEndpoints}}},
	} {
		s := operations.Service{Config: config, Doc: &clearml.Service{}}
		if err := s.DropUnusedCode(t.Context(), "code"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
