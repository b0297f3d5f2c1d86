package s3

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"clearmlserving/leaktest"
	"clearmlserving/storage"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestOnlyConfiguredPlacesAreNamed(t *testing.T) {
	a := New(Options{Default: Access{From: "default"}, Buckets: []Bucket{
		{Name: "data/team"}, {Host: "minio:9000", Name: "own"}, {Host: "ceph:80"}, {},
	}})
	for url, want := range map[string]bool{
		"s3://data/team/k": true, "S3://data/team/k": true, "s3://data/Team/k": false, "s3://data/team": false, "s3://data/k": false,
		"s3://data/teams/k": false, "s3://minio:9000/own/k": true, "s3://minio:9000/other/k": false, "s3://own/k": false,
		"s3://MINIO:9000/own/k": true, "s3://ceph:80/any/k": true, "s3://other:80/any/k": false, "gs://data/team/k": false, "": false,
	} {
		if got := a.Named(url); got != want {
			t.Errorf("%s: %v; want %v", url, got, want)
		}
	}
}

func TestURLMeansThisBucketWithThisAccess(t *testing.T) {
	o := Options{Default: Access{From: "default"}, Buckets: []Bucket{
		{Name: "data", Access: Access{From: "data"}},
		{Name: "data/special", Access: Access{From: "special"}},
		{Host: "minio:9000", Access: Access{From: "minio"}},
		{Host: "minio:9000", Name: "Own", Access: Access{From: "own"}},
		{Host: "no-port.example", Name: "b", Access: Access{From: "no port"}},
	}}
	for url, want := range map[string]string{
		"s3://data/k":                "default-host data k data",
		"s3://data":                  "default-host data  data",
		"s3://data-of-others/k":      "default-host data-of-others k default",
		"s3://data/special/k":        "default-host data special/k special",
		"s3://minio:9000/x/a/b":      "minio:9000 x a/b minio",
		"s3://minio:9000/own/a":      "minio:9000 own a own",
		"S3://other:1/b/a b/#%20?.k": "other:1 b a b/#%20?.k default",
		"s3://no-port.example/b/k":   "no-port.example b k no port",
		"s3://[::1]:9000/b/k":        "[::1]:9000 b k default",
	} {
		p, access, err := o.choose(url)
		if p.host == "" {
			p.host = "default-host"
		}
		if got := fmt.Sprint(p.host, " ", p.bucket, " ", p.key, " ", access.From); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
	for _, url := range []string{"s3://", "s3:///k", "s3://host:9000", "http://b/k"} {
		if _, _, err := o.choose(url); err == nil {
			t.Errorf("%s is accepted as an address", url)
		}
	}
}

func TestAnswersOfAServerAreExplained(t *testing.T) {
	for code, c := range map[string]struct {
		status    int
		is        error
		transient bool
		says      string
	}{
		"AccessDenied":                 {403, storage.ErrDenied, false, "no right"},
		"InvalidAccessKeyId":           {403, storage.ErrDenied, false, "check key in the test"},
		"SignatureDoesNotMatch":        {403, storage.ErrDenied, false, "check secret in the test"},
		"ExpiredToken":                 {400, storage.ErrDenied, false, "AWS_SESSION_TOKEN"},
		"RequestTimeTooSkewed":         {403, storage.ErrDenied, false, "clock"},
		"AuthorizationHeaderMalformed": {400, nil, false, "set region in the test"},
		"NoSuchBucket":                 {404, storage.ErrNotExist, false, `bucket "bucket" does not exist`},
		"NoSuchKey":                    {404, storage.ErrNotExist, false, "no such file"},
		"SlowDown":                     {503, nil, true, "SlowDown"},
		"InternalError":                {500, nil, true, "InternalError"},
		"Odd":                          {418, nil, false, "418 Odd"},
	} {
		t.Run(code, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/xml")
				w.WriteHeader(c.status)
				if r.Method != http.MethodHead {
					_ = xml.NewEncoder(w).Encode(struct {
						XMLName xml.Name `xml:"Error"`
						Code    string
						Message string
					}{Code: code, Message: "the server's words"})
				}
			}))
			defer server.Close()
			a := New(Options{Default: Access{Key: "k", Secret: "s", Plain: true, From: "the test"}})
			_, _, err := a.Open(t.Context(), "s3://"+strings.TrimPrefix(server.URL, "http://")+"/bucket/k", storage.Part{})
			if err == nil || storage.IsTransient(err) != c.transient || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v (transient: %v); want one that says %q", err, storage.IsTransient(err), c.says)
			}
			if strings.Contains(err.Error(), "secret: s") {
				t.Error("the secret is revealed")
			}
		})
	}
}
