package gs

import "testing"

func TestOnlyConfiguredBucketsAreNamed(t *testing.T) {
	a := New(Options{Default: Access{Credentials: "{}"}, Buckets: []Bucket{{Name: "data", Folder: "/team/"}, {Name: "all"}}})
	for url, want := range map[string]bool{
		"gs://data/team/k": true, "GS://all/k": true, "gs://data/Team/k": false, "gs://data/k": false, "gs://allied/k": false, "gs://other/k": false,
		"gs://all": false, "s3://all/k": false, "": false,
	} {
		if got := a.Named(url); got != want {
			t.Errorf("%s: %v; want %v", url, got, want)
		}
	}
}
