package api_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/controlplane/api"
	"clearmlserving/controlplane/store/sqlite/sqlitetest"
)

// Whatever comes as the body of whatever call is answered by an envelope, and by
// none that says that it was our fault.
func FuzzCalls(f *testing.F) {
	db := sqlitetest.Open(f, filepath.Join(f.TempDir(), "clearml.db"))
	auth := api.NewAuth(api.AuthOptions{Store: db})
	creds, _, err := auth.EnsureDefaults(f.Context(), api.Credentials{})
	if err != nil {
		f.Fatal(err)
	}
	server := api.New(api.Options{Store: db, Auth: auth, Version: "test"})
	calls := server.Calls()
	for i := range calls {
		f.Add(i, `{}`)
		f.Add(i, `{"task":"x","tasks":["x"],"model":"x","id":"x","ids":["x"],"project":"x","name":"n","type":"training","page":1,"page_size":5,"configuration":[{"name":"a","value":"b"}],"hyperparams":[{"section":"s","name":"n","value":"v"}],"metadata":[{"key":"k","value":1}]}`)
		f.Add(i, `{"task":{},"tasks":"x","model":[],"id":null,"ids":[null,1],"name":[],"type":1,"page":-1,"page_size":1e30,"configuration":{"a":null},"only_fields":["a.b","-c"],"order_by":["-x"],"_any_":{"fields":["name"],"pattern":"("}}`)
	}
	f.Fuzz(func(t *testing.T, n int, body string) {
		call := calls[uint(n)%uint(len(calls))].Name
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+call, strings.NewReader(body))
		req.SetBasicAuth(creds.AccessKey, creds.SecretKey)
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if w.Code >= 500 || !strings.Contains(w.Body.String(), `"meta"`) {
			t.Errorf("%s %q: %d %s", call, body, w.Code, w.Body)
		}
	})
}

// A token that this server has not made admits nobody, however close it comes.
func FuzzToken(f *testing.F) {
	db := sqlitetest.Open(f, filepath.Join(f.TempDir(), "clearml.db"))
	auth := api.NewAuth(api.AuthOptions{Store: db})
	creds, _, err := auth.EnsureDefaults(f.Context(), api.Credentials{})
	if err != nil {
		f.Fatal(err)
	}
	good := base64Of(creds)
	for _, header := range []string{
		"", "Bearer", "Bearer x", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30.", "Basic", "Basic Og==", "Basic x", "basic  ", "Digest a", "Bearer ..", "Basic " + good[:len(good)-4],
	} {
		f.Add(header, "clearml_token_basic="+header)
	}
	f.Fuzz(func(t *testing.T, header, cookie string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/tasks.get_all", nil)
		req.Header["Authorization"], req.Header["Cookie"] = []string{header}, []string{cookie}
		if who, err := auth.Authenticate(req); err == nil {
			t.Errorf("%q and %q were taken for %+v", header, cookie, who)
		}
	})
}

func base64Of(c api.Credentials) string { return strings.TrimPrefix(basic(c), "Basic ") }
