package operations_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// Only files that a revision left behind in the service's own folder are deleted: an artifact may say
// anything, and the file of something else must not go because of it.
func TestOnlyTheServicesOwnFilesOfOldRevisionsAreDeleted(t *testing.T) {
	var deleted, dropped []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodDelete:
			deleted = append(deleted, r.URL.Path)
		case strings.HasSuffix(r.URL.Path, "tasks.delete_artifacts"):
			var request struct{ Artifacts []struct{ Key string } }
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
				t.Error(err)
			}
			dropped = append(dropped, request.Artifacts[0].Key)
		}
		_, _ = w.Write([]byte(`{"meta":{"result_code":200},"data":{"token":"t"}}`))
	}))
	defer server.Close()
	client, err := clearml.New(clearml.Options{Config: clearml.Config{
		API: clearml.Setting{Value: server.URL}, Files: clearml.Setting{Value: server.URL}, Token: clearml.NewSecret("t", ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	hash := func(digit string) string { return strings.Repeat(digit, 64) }
	s := operations.Service{Client: client, Doc: &clearml.Service{ID: "s", Name: "shop", Artifacts: map[string]clearml.Artifact{}}}
	own := server.URL + "/" + s.Doc.StoragePath() + "/artifacts/py_code_m/"
	put := func(key, digit, uri string) {
		s.Doc.Artifacts[key] = clearml.Artifact{Key: key, Hash: hash(digit), URI: uri}
	}
	put("revision_old", "1", own+hash("1")[:12]+"/p.py")
	put("revision_kept", "2", own+hash("2")[:12]+"/p.py")
	put("revision_serving", "3", own+hash("3")[:12]+"/p.py")
	put("py_code_m", "3", own+hash("3")[:12]+"/p.py")
	put("revision_elsewhere", "4", server.URL+"/other/models/"+hash("4")[:12]+"/model.pkl")
	put("revision_other_file", "5", own+"model.pkl")
	put("revision_bucket", "6", "s3://bucket/"+hash("6")[:12]+"/p.py")
	s.Config.Revisions = map[string]serving.History{"m": {Revisions: []serving.Revision{{Number: 1, Content: serving.Content{Code: &serving.ModelCode{SHA256: hash("2")}}}}}}
	if err := s.PruneFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/" + s.Doc.StoragePath() + "/artifacts/py_code_m/111111111111/p.py"}; !slices.Equal(deleted, want) {
		t.Errorf("deleted %v, want %v", deleted, want)
	}
	if want := []string{"revision_bucket", "revision_elsewhere", "revision_old", "revision_other_file"}; !slices.Equal(dropped, want) {
		t.Errorf("dropped %v, want %v", dropped, want)
	}
}
