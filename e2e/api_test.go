//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// createdID returns the id from the line that scripts parse.
func createdID(t *testing.T, out string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^New Serving Service created: id=([0-9a-f]{32})$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("create printed no id: %q", out)
	}
	return m[1]
}

// variable returns one of the SDK's variables.
func (s *system) variable(t *testing.T, name string) string {
	t.Helper()
	for _, pair := range s.sdk {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	t.Fatalf("clearml-serving env does not print %s", name)
	return ""
}

// authorization returns a header with a token for the installation's credentials.
func (s *system) authorization(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://-/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(s.variable(t, "CLEARML_API_ACCESS_KEY"), s.variable(t, "CLEARML_API_SECRET_KEY"))
	status, body := roundTrip(http.MethodPost, s.urls["api"]+"/auth.login", "", nil, "Authorization", req.Header.Get("Authorization"))
	if status != http.StatusOK {
		t.Fatalf("auth.login: %d %s", status, body)
	}
	var answer struct{ Data struct{ Token string } }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	return "Bearer " + answer.Data.Token
}

// call makes an API call that must succeed.
func (s *system) call(t *testing.T, name string, request any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := roundTrip(http.MethodPost, s.urls["api"]+"/"+name, "application/json", bytes.NewReader(body), "Authorization", s.authorization(t))
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", name, status, answer)
	}
}

// upload stores a file on the file server as the SDK does, and returns its URL.
func (s *system) upload(t *testing.T, path string, content []byte) string {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile(path, path[strings.LastIndexByte(path, '/')+1:])
	if err == nil {
		_, err = part.Write(content)
	}
	if err == nil {
		err = form.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	status, answer := roundTrip(http.MethodPost, s.urls["files"]+"/", form.FormDataContentType(), &body, "Authorization", s.authorization(t))
	if status != http.StatusOK {
		t.Fatalf("upload %s: %d %s", path, status, answer)
	}
	return s.urls["files"] + "/" + strings.TrimPrefix(path, "/")
}
