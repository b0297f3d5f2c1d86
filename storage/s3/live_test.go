package s3_test

import (
	"crypto/rand"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"clearmlserving/storage"
	"clearmlserving/storage/s3"
	"clearmlserving/storage/storagetest"
)

// servers are the addresses of real servers, which "make e2e-storage" starts.
var servers = []string{"CLEARML_SERVING_TEST_S3", "CLEARML_SERVING_TEST_S3_OTHER"}

// live returns the address of a real server, without its scheme.
func live(t *testing.T, variable string) string {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		t.Skip("no server: make e2e-storage runs this against real ones (" + variable + ")")
	}
	return strings.TrimPrefix(address, "http://")
}

var keys = s3.Access{Key: "testkey", Secret: "testsecret", Plain: true, From: "the test"}

// newClient talks to a server without the adapter.
func newClient(t *testing.T, host string) *minio.Client {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.New(host, &minio.Options{Creds: credentials.NewStaticV4(keys.Key, keys.Secret, ""), Region: "us-east-1", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func newBucket(t *testing.T, host string) string {
	t.Helper()
	bucket := "test-" + strings.ToLower(rand.Text())
	if err := newClient(t, host).MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return bucket
}

func newAdapter(t *testing.T, o s3.Options) *s3.Adapter {
	t.Helper()
	a := s3.New(o)
	return a
}

func TestRealServersKeepTheContract(t *testing.T) {
	for _, variable := range servers {
		t.Run(variable, func(t *testing.T) {
			host := live(t, variable)
			bucket := newBucket(t, host)
			adapter := newAdapter(t, s3.Options{Default: keys})
			storagetest.Run(t, func(*testing.T) storagetest.Place {
				folder := "s3://" + host + "/" + bucket + "/" + rand.Text() + "/"
				return storagetest.Place{Adapter: adapter, Ranges: true, URL: func(name string) string { return folder + name }}
			})
		})
	}
}

func TestRealServersSayWhatIsWrong(t *testing.T) {
	for _, variable := range servers {
		t.Run(variable, func(t *testing.T) {
			host := live(t, variable)
			bucket := newBucket(t, host)
			wrongSecret, wrongKey := keys, keys
			wrongSecret.Secret, wrongKey.Key = "another", "nobody"
			for name, c := range map[string]struct {
				access s3.Access
				url    string
				is     error
				says   []string
			}{
				"no such bucket": {keys, "s3://" + host + "/no-such-bucket/k", storage.ErrNotExist, []string{`bucket "no-such-bucket" does not exist on ` + host}},
				"no such key":    {keys, "s3://" + host + "/" + bucket + "/a/k", storage.ErrNotExist, []string{"/a/k"}},
				"wrong secret":   {wrongSecret, "s3://" + host + "/" + bucket + "/k", storage.ErrDenied, []string{"the test"}},
				"unknown key":    {wrongKey, "s3://" + host + "/" + bucket + "/k", storage.ErrDenied, []string{"the test"}},
				"no credentials": {s3.Access{Plain: true}, "s3://" + host + "/" + bucket + "/k", storage.ErrDenied, []string{"sdk.aws.s3.credentials", "AWS_ACCESS_KEY_ID"}},
			} {
				t.Run(name, func(t *testing.T) {
					storagetest.Refused(t, newAdapter(t, s3.Options{Default: c.access}), c.url, c.is, c.says...)
				})
			}
		})
	}
}

func TestCutUploadsLeaveNothing(t *testing.T) {
	for _, variable := range servers {
		t.Run(variable, func(t *testing.T) {
			host := live(t, variable)
			bucket := newBucket(t, host)
			storagetest.CutUploads(t, newAdapter(t, s3.Options{Default: keys}), "s3://"+host+"/"+bucket+"/")
			for left := range newClient(t, host).ListIncompleteUploads(t.Context(), bucket, "", true) {
				t.Errorf("pieces of a failed upload are left: %s %v", left.Key, left.Err)
			}
		})
	}
}

func TestListedFilesAreThoseBelowThePrefix(t *testing.T) {
	for _, variable := range servers {
		t.Run(variable, func(t *testing.T) {
			host := live(t, variable)
			storagetest.Lists(t, newAdapter(t, s3.Options{Default: keys}), "s3://"+host+"/"+newBucket(t, host)+"/")
		})
	}
}
