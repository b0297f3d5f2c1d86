package controlplane_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"clearmlserving/controlplane"
)

func TestLimitedCredentialsReadFilesAndWriteNone(t *testing.T) {
	r := start(t, controlplane.Options{})
	if status, _, text := r.send(t, "PUT", r.files+"/p/a", "kept"); status != 200 {
		t.Fatalf("PUT: %d %s", status, text)
	}
	call := func(name, body string, into any) {
		t.Helper()
		_, _, text := r.send(t, "POST", r.api+"/"+name, body)
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
	}
	var task struct{ Data struct{ ID string } }
	call("tasks.create", `{"name":"service","type":"service"}`, &task)
	for _, limit := range []string{`{"read_only":true}`, fmt.Sprintf(`{"service":%q}`, task.Data.ID)} {
		var made struct {
			Data struct {
				Credentials struct {
					Access string `json:"access_key"`
					Secret string `json:"secret_key"`
				}
			}
		}
		call("auth.create_credentials", limit, &made)
		limited := *r
		limited.access, limited.secret = made.Data.Credentials.Access, made.Data.Credentials.Secret
		if status, _, text := limited.send(t, "GET", r.files+"/p/a", ""); status != 200 || text != "kept" {
			t.Errorf("%s: GET %d %q", limit, status, text)
		}
		for _, method := range []string{"PUT", "DELETE"} {
			if status, _, text := limited.send(t, method, r.files+"/p/a", "changed"); status != 403 || !strings.Contains(text, "may only read files") {
				t.Errorf("%s: %s %d %s, want 403 that says why", limit, method, status, text)
			}
		}
	}
}
