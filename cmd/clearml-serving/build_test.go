package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"clearmlserving/serving"
)

// hadolint has no complaint about what build writes.
func TestTheDockerfilesOfBuildAreClean(t *testing.T) {
	hadolint := os.Getenv("CLEARML_SERVING_TEST_HADOLINT")
	if hadolint == "" {
		t.Skip("there is no hadolint: make image-lint has it")
	}
	for name, d := range map[string]dockerfile{
		"plain":        {Version: "1.2.3", Service: "churn\nRUN false", ID: "id", State: "hash", Endpoints: []serving.EndpointURL{"a", "b/1"}},
		"base":         {Version: "1.2.3", Base: "registry.example.com/team/inference:7", Endpoints: []serving.EndpointURL{"a"}},
		"requirements": {Version: "1.2.3", Endpoints: []serving.EndpointURL{"a"}, Requirements: true},
		"native":       {Version: "1.2.3", Endpoints: []serving.EndpointURL{"a"}, Native: true},
	} {
		dir := t.TempDir()
		if err := d.write(dir); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), hadolint, filepath.Join(dir, "Dockerfile")).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
