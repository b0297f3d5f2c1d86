//go:build linux

package e2e_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// The documented account of Azure's emulators.
const (
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// storageServer is the address of a server that make e2e-storage started.
func storageServer(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv("CLEARML_SERVING_TEST_" + name)
	if value == "" {
		t.Skip("no storage servers: make e2e-storage starts them")
	}
	return value
}

// s3Client and azureContainer talk to servers without the code under test.
func s3Client(t *testing.T, host string) *minio.Client {
	t.Helper()
	c, err := minio.New(host, &minio.Options{Creds: credentials.NewStaticV4("testkey", "testsecret", ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func azureContainer(t *testing.T, name string) *container.Client {
	t.Helper()
	key, err := container.NewSharedKeyCredential(azureAccount, azureKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := container.NewClientWithSharedKeyCredential(storageServer(t, "AZURE")+"/"+azureAccount+"/"+name, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clouds creates a new bucket on each of the servers that make e2e-storage started,
// and returns their addresses by the server's name.
func clouds(t *testing.T) map[string]string {
	t.Helper()
	bucket := "models-" + strings.ToLower(rand.Text())
	places := map[string]string{}
	for server, variable := range map[string]string{"minio": "S3", "versitygw": "S3_OTHER"} {
		host := strings.TrimPrefix(storageServer(t, variable), "http://")
		if err := s3Client(t, host).MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		places[server] = "s3://" + host + "/" + bucket
	}
	status, answer := roundTrip("POST", storageServer(t, "GS")+"/storage/v1/b?project=test", "application/json", strings.NewReader(`{"name":"`+bucket+`"}`))
	if status != http.StatusOK {
		t.Fatalf("make a bucket: %d %s", status, answer)
	}
	places["fake-gcs-server"] = "gs://" + bucket
	if _, err := azureContainer(t, bucket).Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	places["azurite"] = "azure://" + azureAccount + ".blob.core.windows.net/" + bucket
	return places
}

// knowingClouds is an installation whose clearml.conf has the credentials of all servers,
// in the forms that ClearML documents.
func knowingClouds(t *testing.T) *system {
	t.Helper()
	s := install(t)
	host := func(name string) string {
		return strings.TrimPrefix(os.Getenv("CLEARML_SERVING_TEST_"+name), "http://")
	}
	conf := fmt.Sprintf(`sdk {
  development { vcs_repo_detect_async: false }
  aws { s3 { key: "", secret: "", region: "us-east-1"
    credentials: [
      { host: %q, key: "testkey", secret: "testsecret", multipart: false, secure: false, region: "us-east-1" },
      { host: %q, key: "testkey", secret: "testsecret", secure: false, region: "us-east-1" },
    ]
  } }
  azure.storage { containers: [ { account_name: %q, account_key: %q } ] }
}
`, host("S3"), host("S3_OTHER"), azureAccount, azureKey)
	if err := os.WriteFile(s.config(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env,
		"STORAGE_EMULATOR_HOST="+os.Getenv("CLEARML_SERVING_TEST_GS"),
		"AZURE_STORAGE_CONNECTION_STRING=AccountName="+azureAccount+";BlobEndpoint="+os.Getenv("CLEARML_SERVING_TEST_AZURE")+"/"+azureAccount)
	return s
}

func (s *system) config() string { return filepath.Join(s.dir, "home", "clearml.conf") }

func TestAModelIsUploadedToAndServedFromEveryPlace(t *testing.T) {
	places := clouds(t)
	s := knowingClouds(t)
	places["a folder"] = "file://" + filepath.Join(s.dir, "work", "models")
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create", "--name", "ü #1/50%"))
	n := 0
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			n++
			endpoint, text := fmt.Sprintf("cloud%d", n), fmt.Sprintf("words%d", n)
			model := s.register(t, id, text, "--name", "model of "+name, "--project", "clouds", "--destination", place)
			s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", endpoint, "--model-id", model, "--preprocess", code("reads_model.py"))
			s.answers(t, endpoint, says(text))
		})
	}
	for place, words := range map[string]string{
		strings.Replace(places["minio"], "models-", "others-", 1): "does not exist on",
		"azure://nobody.blob.core.windows.net/models":             "sdk.azure.storage.containers",
		"ftp://host/models": "supported are azure, file, gs, http, https, s3",
	} {
		file := writeCode(t, s, "refused.txt", "x")
		r := s.cli(t, "--id", id, "model", "upload", "--name", "refused", "--project", "refused", "--path", file, "--destination", place)
		if r.code == 0 || !strings.Contains(r.String(), words) {
			t.Errorf("upload to %s: %v; want a refusal with %q", place, r, words)
		}
	}
	if out := s.must(t, "--id", id, "model", "list", "--json"); strings.Contains(out, "refused") {
		t.Errorf("a model without a file was registered: %s", out)
	}
}

func TestTheSDKUploadsToABucketWhatIsThenServed(t *testing.T) {
	places := clouds(t)
	s := knowingClouds(t)
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	for _, name := range []string{"minio", "versitygw"} {
		t.Run(name, func(t *testing.T) {
			env := append([]string{"CLEARML_CONFIG_FILE=" + s.config()}, s.sdk...)
			r := s.command(t, env, filepath.Join(root, ".venv-storage/bin/python"), filepath.Join(root, "e2e/testdata/python/train_to.py"), places[name], "sdk "+name)
			if r.code != 0 {
				t.Fatal(r)
			}
			wantsOK(t, r.out)
			s.must(t, "--id", id, "model", "add", "--engine", "sklearn", "--endpoint", name, "--project", "sdk "+name,
				"--name", "train elsewhere - tiny", "--preprocess", code("tiny.py"))
			s.eventually(t, patience, name+" answers", func() error { return statusError(s.ask(t, name, `{"x": 2}`)) })
		})
	}
}

func TestTheFileServerStandsOnABucket(t *testing.T) {
	for name, place := range clouds(t) {
		t.Run(name, func(t *testing.T) {
			s := knowingClouds(t)
			s.env = append(s.env, "CLEARML_SERVING_FILES_DESTINATION="+place+"/all files")
			s.start(t, role{})
			t.Cleanup(func() { s.stop(t) })
			wantsOK(t, s.python(t, pythonSDK2, "round_trip.py"))
			id := createdID(t, s.must(t, "create"))
			model := s.register(t, id, "stored", "--name", "stored model", "--project", "stored files")
			s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "e", "--model-id", model, "--preprocess", code("reads_model.py"))
			s.answers(t, "e", says("stored"))
			if kept, err := filepath.Glob(filepath.Join(s.data, "files", "*")); err != nil || len(kept) > 0 {
				t.Errorf("the data folder contains %q (%v)", kept, err)
			}
			s.filesAreAsOnADisk(t)
		})
	}
}

// held lists the files in a bucket by the server's API.
func held(t *testing.T, place string) []string {
	t.Helper()
	scheme, rest, _ := strings.Cut(place, "://")
	host, bucket, _ := strings.Cut(rest, "/")
	var names []string
	switch scheme {
	case "s3":
		for object := range s3Client(t, host).ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
			if object.Err != nil {
				t.Fatal(object.Err)
			}
			names = append(names, object.Key)
		}
	case "gs":
		status, answer := roundTrip("GET", storageServer(t, "GS")+"/storage/v1/b/"+rest+"/o", "", nil)
		if status != http.StatusOK {
			t.Fatalf("list %s: %d %s", place, status, answer)
		}
		var listed struct{ Items []struct{ Name string } }
		decode(t, answer, &listed)
		for _, item := range listed.Items {
			names = append(names, item.Name)
		}
	case "azure":
		for pages := azureContainer(t, bucket).NewListBlobsFlatPager(nil); pages.More(); {
			page, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range page.Segment.BlobItems {
				names = append(names, *item.Name)
			}
		}
	default:
		t.Fatalf("no server for %s", place)
	}
	slices.Sort(names)
	return names
}

// The control plane removes a deleted model's file, and no other, from the buckets in its
// clearml.conf.
func TestAModelIsDeletedWithItsFileInEveryPlace(t *testing.T) {
	places := clouds(t)
	s := knowingClouds(t)
	conf, err := os.OpenFile(s.config(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conf, "sdk.google.storage.credentials: [ { bucket: %q } ]\n", strings.TrimPrefix(places["fake-gcs-server"], "gs://"))
	if err := errors.Join(err, conf.Close()); err != nil {
		t.Fatal(err)
	}
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	id, call := createdID(t, s.must(t, "create")), s.caller(t)
	remove := func(model string, files bool) (deleted int, failed string) {
		var answer struct {
			Data struct {
				Files struct {
					Deleted int
					Failed  []struct{ URL, Error string }
				}
			}
		}
		decode(t, call("models.delete", map[string]any{"model": model, "delete_external_artifacts": files}), &answer)
		for _, one := range answer.Data.Files.Failed {
			failed += one.URL + ": " + one.Error
		}
		return answer.Data.Files.Deleted, failed
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			models := map[string]string{}
			for _, text := range []string{"goes", "stays", "left behind", "shared"} {
				models[text] = s.register(t, id, text, "--name", text, "--project", "ü #1/50% "+name, "--destination", place)
			}
			before := held(t, place)
			if len(before) != len(models) {
				t.Fatalf("%d models are in the files %q", len(models), before)
			}
			var read struct {
				Data struct{ Model struct{ URI string } }
			}
			decode(t, call("models.get_by_id", map[string]any{"model": models["shared"]}), &read)
			call("models.create", map[string]any{"name": "the same file", "uri": read.Data.Model.URI, "ready": true})
			for _, c := range []struct {
				model   string
				files   bool
				deleted int
				failed  string
			}{
				{"goes", true, 1, ""},
				{"left behind", false, 0, ""},
				{"shared", true, 0, "1 other model"},
			} {
				deleted, failed := remove(models[c.model], c.files)
				if deleted != c.deleted || (failed == "") != (c.failed == "") || !strings.Contains(failed, c.failed) {
					t.Errorf("%s: %d files deleted, failed: %q; want %d and %q", c.model, deleted, failed, c.deleted, c.failed)
				}
			}
			want := slices.DeleteFunc(before, func(file string) bool { return strings.HasSuffix(file, "/goes.txt") })
			if got := held(t, place); !slices.Equal(got, want) || len(got) != 3 {
				t.Errorf("left are %q, want %q", got, want)
			}
		})
	}
}

// filesAreAsOnADisk checks that clients of the file server see no difference from a disk.
func (s *system) filesAreAsOnADisk(t *testing.T) {
	t.Helper()
	token := "Bearer " + s.token(t)
	at := s.urls["files"] + "/tests/"
	send := func(method, path string, body io.Reader, header ...string) (int, string) {
		return roundTrip(method, at+path, "", body, append(header, "Authorization", token)...)
	}
	content := bytes.Repeat([]byte("0123456789"), 3<<20)
	if status, answer := send("PUT", "a/big", bytes.NewReader(content)); status != http.StatusOK {
		t.Fatalf("upload: %d %s", status, answer)
	}
	if status, got := send("GET", "a/big", nil); status != http.StatusOK || got != string(content) {
		t.Errorf("download: %d, %d bytes", status, len(got))
	}
	if status, got := send("GET", "a/big", nil, "Range", "bytes=15000005-15000014"); status != http.StatusPartialContent || got != "5678901234" {
		t.Errorf("a range: %d %q", status, got)
	}
	if status, got := send("GET", "a/big", nil, "Range", "bytes=-3"); status != http.StatusPartialContent || got != "789" {
		t.Errorf("the end: %d %q", status, got)
	}
	if status, _ := send("GET", "a/..%2f..%2fsecret", nil); status != http.StatusNotFound {
		t.Errorf("a path with ..: %d", status)
	}
	s.cutUpload(t, token)
	if status, _ := send("GET", "cut", nil); status != http.StatusNotFound {
		t.Errorf("half an upload is stored: %d", status)
	}
	status, answer := roundTrip("POST", s.urls["files"]+"/delete_many", "application/json", strings.NewReader(`{"files":["tests/a"]}`), "Authorization", token)
	if status != http.StatusOK || strings.Contains(answer, `"errors":{"`) {
		t.Errorf("delete a folder: %d %s", status, answer)
	}
	if status, _ := send("GET", "a/big", nil); status != http.StatusNotFound {
		t.Errorf("a deleted file: %d", status)
	}
}

// cutUpload sends half of a file of 40 MB and closes the connection.
func (s *system) cutUpload(t *testing.T, token string) {
	t.Helper()
	u, err := url.Parse(s.urls["files"])
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is cut on purpose
	if _, err := fmt.Fprintf(conn, "PUT /tests/cut HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n", token, 40<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(conn, zeros{}, 20<<20); err != nil {
		t.Fatal(err)
	}
}

// token logs in.
func (s *system) token(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.urls["api"]+"/auth.login", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(s.variable(t, "CLEARML_API_ACCESS_KEY"), s.variable(t, "CLEARML_API_SECRET_KEY"))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ Data struct{ Token string } }
	decode(t, string(text), &answer)
	return answer.Data.Token
}

func TestFilesAreFoundAfterTheFileServerGotAnotherAddress(t *testing.T) {
	s := install(t)
	s.start(t, role{})
	t.Cleanup(func() { s.stop(t) })
	id := createdID(t, s.must(t, "create"))
	model := s.register(t, id, "moved", "--name", "stored model", "--project", "stored files")
	before := s.urls["files"]
	s.stop(t)
	if err := os.RemoveAll(filepath.Join(s.data, "cache")); err != nil {
		t.Fatal(err)
	}
	s.start(t, role{}) // on other free ports
	if s.urls["files"] == before {
		t.Skip("the same free port was given twice")
	}
	s.must(t, "--id", id, "model", "add", "--engine", "custom", "--endpoint", "e", "--model-id", model, "--preprocess", code("reads_model.py"))
	s.eventually(t, patience, "the model answers", func() error {
		status, got := s.ask(t, "e", `{"x":1}`)
		return answerError(status, got, says("moved"))
	})
}

func TestAFileOfTenGigabytesPassesThroughConstantMemory(t *testing.T) {
	if os.Getenv("CLEARML_SERVING_TEST_BIG") == "" {
		t.Skip("it takes minutes and 20 GB of disk: make e2e-storage BIG=1")
	}
	const size = 10 << 30
	places := map[string]string{"the data folder": ""}
	if os.Getenv("CLEARML_SERVING_TEST_S3") != "" {
		places["minio"] = clouds(t)["minio"] + "/big"
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			s := knowingClouds(t)
			s.env = append(s.env, "CLEARML_SERVING_FILES_DESTINATION="+place)
			s.start(t, role{})
			t.Cleanup(func() { s.stop(t) })
			token := "Bearer " + s.token(t)
			before, most := s.residentMB(t), 0
			watched := watchingReader{from: io.LimitReader(zeros{}, size), each: func() { most = max(most, s.residentMB(t)) }}
			slow := &http.Client{Timeout: 20 * time.Minute}
			transfer := func(method string, body io.Reader, length int64) *http.Response {
				req, err := http.NewRequest(method, s.urls["files"]+"/big/file.bin", body)
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = length
				req.Header.Set("Authorization", token)
				resp, err := slow.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != http.StatusOK {
					t.Fatal(resp.Status)
				}
				return resp
			}
			began := time.Now()
			transfer(http.MethodPut, &watched, size).Body.Close()
			up := time.Since(began)
			began = time.Now()
			resp := transfer(http.MethodGet, nil, 0)
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, &watchingReader{from: resp.Body, each: watched.each})
			if err != nil || n != size {
				t.Errorf("%d of %d bytes were downloaded: %v", n, int64(size), err)
			}
			t.Logf("10 GiB: up %s, down %s; memory %d MB before, at most %d MB", up.Round(time.Second), time.Since(began).Round(time.Second), before, most)
			if most > before+300 {
				t.Errorf("memory grew from %d MB to %d MB", before, most)
			}
		})
	}
}

// watchingReader calls each after about every 64 MB.
type watchingReader struct {
	from  io.Reader
	each  func()
	since int
}

func (w *watchingReader) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	if w.since += n; w.since > 64<<20 {
		w.since = 0
		w.each()
	}
	return n, err
}
