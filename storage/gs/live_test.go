package gs_test

import (
	"crypto/rand"
	"net/http"
	"os"
	"strings"
	"testing"

	"clearmlserving/storage"
	"clearmlserving/storage/gs"
	"clearmlserving/storage/storagetest"
)

// live returns an adapter to a real server, which "make e2e-storage" starts, and the
// address of a new bucket.
func live(t *testing.T) (*gs.Adapter, string) {
	t.Helper()
	endpoint := os.Getenv("CLEARML_SERVING_TEST_GS")
	if endpoint == "" {
		t.Skip("no server: make e2e-storage runs this against a real one (CLEARML_SERVING_TEST_GS)")
	}
	bucket := "test-" + strings.ToLower(rand.Text())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+"/storage/v1/b?project=test", strings.NewReader(`{"name":"`+bucket+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal("create a bucket: ", resp.Status)
	}
	a := gs.New(gs.Options{Endpoint: endpoint})
	return a, "gs://" + bucket + "/"
}

func TestRealServerKeepsTheContract(t *testing.T) {
	adapter, bucket := live(t)
	storagetest.Run(t, func(*testing.T) storagetest.Place {
		folder := bucket + rand.Text() + "/"
		return storagetest.Place{Adapter: adapter, Ranges: true, URL: func(name string) string { return folder + name }}
	})
}

func TestRealServerSaysWhatIsWrong(t *testing.T) {
	adapter, bucket := live(t)
	storagetest.Refused(t, adapter, bucket+"a/k", storage.ErrNotExist)
}

func TestCutUploadsLeaveNothing(t *testing.T) {
	adapter, bucket := live(t)
	storagetest.CutUploads(t, adapter, bucket)
}

func TestListedFilesAreThoseBelowThePrefix(t *testing.T) {
	adapter, bucket := live(t)
	storagetest.Lists(t, adapter, bucket)
}
