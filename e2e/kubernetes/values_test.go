package kubernetes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestKubernetesAcceptsEverySetOfValues gives each usual set of values to the API server, which checks every object as if it
// were made, and warns of pods that restricted pod security would refuse. Kinds of others (KEDA, gateways, the Prometheus
// operator) are not in the cluster: make chart-check compares those with their schemas.
func TestKubernetesAcceptsEverySetOfValues(t *testing.T) {
	c := cluster{t, os.Getenv("CLEARML_SERVING_E2E_KUBERNETES")}
	c.newNamespace()
	c.must(c.home+"/bin/kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
	known := strings.Fields(c.kubectl("api-versions"))
	sets, err := filepath.Glob("../../helm/clearml-serving-go/ci/*-values.yaml")
	if err != nil || len(sets) < 5 {
		t.Fatalf("sets of values: %q, %v", sets, err)
	}
	version := regexp.MustCompile(`(?m)^apiVersion: (\S+)`)
	for _, set := range sets {
		t.Run(strings.TrimSuffix(filepath.Base(set), "-values.yaml"), func(t *testing.T) {
			c := cluster{t, c.home}
			path, err := filepath.Abs(set)
			if err != nil {
				t.Fatal(err)
			}
			var objects []string
			for _, text := range regexp.MustCompile(`(?m)^---$`).Split(c.helm("template", release, "helm/clearml-serving-go", "--kube-version", "1.33", "-f", path), -1) {
				if m := version.FindStringSubmatch(text); m != nil && slices.Contains(known, m[1]) {
					objects = append(objects, text)
				}
			}
			file := filepath.Join(t.TempDir(), "objects.yaml")
			if err := os.WriteFile(file, []byte(strings.Join(objects, "\n---\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			out := c.must("sh", "-c", "exec kubectl -n "+namespace+" apply --dry-run=server -f "+file+" 2>&1")
			if made := strings.Count(out, "created (server dry run)"); made != len(objects) || strings.Contains(out, "Warning") {
				t.Errorf("%d of %d objects are accepted:\n%s", made, len(objects), out)
			}
		})
	}
}
