package operations_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// An endpoint that is unloaded and loaded again has the markers of before: only the age of what an instance has read
// tells the two apart.
func TestAWriteKnowsTheAgeOfWhatItIsBasedOn(t *testing.T) {
	sections := map[string]string{"endpoints": `{"m":{"engine_type":"custom","serving_url":"m"}}`}
	changed := time.Unix(1e9, 0).UTC()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data := map[string]any{"token": "t"}
		switch r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] {
		case "server.info":
			data["version"], data["api_version"], data["extensions"] = "2.0.0", "2.31", []string{"conditional_configuration"}
		case "tasks.get_by_id":
			configuration := map[string]any{}
			for name, text := range sections {
				configuration[name] = map[string]any{"name": name, "value": text}
			}
			data["task"] = map[string]any{
				"id": "s", "name": "shop", "last_update": changed.Format(time.RFC3339Nano), "configuration": configuration, "runtime": map[string]any{"version": clearml.ServiceVersion},
			}
		case "tasks.edit_configuration":
			var request struct {
				Configuration []struct{ Name, Value string }
			}
			if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
				t.Error(err)
			}
			for _, object := range request.Configuration {
				sections[object.Name] = object.Value
			}
			changed = changed.Add(time.Minute)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]any{"result_code": 200}, "data": data})
	}))
	defer server.Close()
	client, err := clearml.New(clearml.Options{Config: clearml.Config{API: clearml.Setting{Value: server.URL}, Token: clearml.NewSecret("t", "")}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s, err := operations.Open(t.Context(), client, "s")
	if err != nil {
		t.Fatal(err)
	}
	load := func(load bool) {
		t.Helper()
		if _, err := s.SetLoaded(t.Context(), serving.EndpointURL("m"), load, "ada"); err != nil {
			t.Fatal(err)
		}
	}
	load(true) // begins the history of the endpoint
	before, first := s.Digests()["m"], s.Since
	load(true)
	if !s.Since.Equal(first) {
		t.Errorf("nothing was written, and it is based on what was read at %s", s.Since)
	}
	load(false)
	unloaded := changed
	load(true)
	if s.Digests()["m"] != before || !s.Since.Equal(unloaded) {
		t.Errorf("the marker is %s, before %s; based on what was written at %s, not %s", s.Digests()["m"], before, s.Since, unloaded)
	}
	changed = changed.Add(time.Hour) // a ping
	if err := s.Reload(t.Context()); err != nil || !s.Since.Equal(unloaded) {
		t.Errorf("based on %s, not %s (%v)", s.Since, unloaded, err)
	}
}
