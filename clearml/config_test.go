package clearml_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/hocon"
)

// place is a home folder with files, beside a data folder, and an environment.
type place struct {
	home, data string
	env        map[string]string
}

func newPlace(t *testing.T, files map[string]string, env map[string]string) place {
	t.Helper()
	root := t.TempDir()
	p := place{home: filepath.Join(root, "home"), data: filepath.Join(root, "data"), env: map[string]string{}}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "ROOT", root)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range env {
		p.env[name] = strings.ReplaceAll(value, "ROOT", root)
	}
	return p
}

func (p place) load() (clearml.Config, error) {
	return clearml.LoadConfig(clearml.ConfigOptions{
		Env:     func(name string) (string, bool) { v, ok := p.env[name]; return v, ok },
		HomeDir: p.home, DataDir: p.data,
	})
}

const someKeys = "api.credentials { access_key: fileKey, secret_key: fileSecret }\n"

func TestEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	text := func(s clearml.Setting) string { return s.Value }
	for _, c := range []struct {
		rule         string
		names        []string // the first beats the second
		key          string
		fallback     string
		get          func(clearml.Config) string
		first, later string // values to tell them apart
	}{
		{"API server", []string{"CLEARML_API_HOST", "TRAINS_API_HOST"}, "api.api_server", "https://api.clear.ml", func(c clearml.Config) string { return text(c.API) }, "http://a:8008", "http://b:8008"},
		{"API server, old key", []string{"CLEARML_API_HOST", "TRAINS_API_HOST"}, "api.host", "https://api.clear.ml", func(c clearml.Config) string { return text(c.API) }, "http://a:8008", "http://b:8008"},
		{"web server", []string{"CLEARML_WEB_HOST", "TRAINS_WEB_HOST"}, "api.web_server", "https://app.clear.ml", func(c clearml.Config) string { return text(c.Web) }, "http://a:8080", "http://b:8080"},
		{"file server", []string{"CLEARML_FILES_HOST", "TRAINS_FILES_HOST"}, "api.files_server", "https://files.clear.ml", func(c clearml.Config) string { return text(c.Files) }, "http://a:8081", "http://b:8081"},
		{"access key", []string{"CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY"}, "api.credentials.access_key", "fileKey", func(c clearml.Config) string { return text(c.AccessKey) }, "ka", "kb"},
		{"secret key", []string{"CLEARML_API_SECRET_KEY", "TRAINS_API_SECRET_KEY"}, "api.credentials.secret_key", "fileSecret", func(c clearml.Config) string { return c.SecretKey.Reveal() }, "sa", "sb"},
		{"token", []string{"CLEARML_AUTH_TOKEN"}, "", "", func(c clearml.Config) string { return c.Token.Reveal() }, "ta", "tb"},
		{"certificate", []string{"CLEARML_API_HOST_VERIFY_CERT", "TRAINS_API_HOST_VERIFY_CERT"}, "api.verify_certificate", "", func(c clearml.Config) string { return c.TLS.CAFile }, "/a.pem", "/b.pem"},
		{"retry codes", []string{"CLEARML_API_EXTRA_RETRY_CODES"}, "api.http.extra_retry_codes", "[]", func(c clearml.Config) string { return fmt.Sprint(c.ExtraRetryCodes) }, "408,500", "[418]"},
		{"highest version", []string{"CLEARML_FORCE_MAX_API_VERSION"}, "", "", func(c clearml.Config) string { return c.MaxAPIVersion }, "2.20", "2.9"},
		{"worker name", []string{"CLEARML_WORKER_NAME", "TRAINS_WORKER_NAME"}, "", hostName(t), func(c clearml.Config) string { return text(c.WorkerName) }, "wa", "wb"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			check := func(what string, env map[string]string, conf, want string) {
				t.Helper()
				p := newPlace(t, map[string]string{"home/clearml.conf": someKeys + conf}, env)
				config, err := p.load()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if got := strings.Replace(c.get(config), p.home, "HOME", 1); got != want {
					t.Errorf("%s: got %q, want %q", what, got, want)
				}
			}
			shown := func(v string) string { // as the getter shows a value
				if c.key == "api.http.extra_retry_codes" {
					return "[" + strings.ReplaceAll(strings.Trim(v, "[]"), ",", " ") + "]"
				}
				return v
			}
			check("nothing", nil, "", c.fallback)
			inFile := ""
			if c.key != "" {
				value := `"` + c.later + `"`
				if strings.HasPrefix(c.later, "[") {
					value = c.later
				}
				inFile = c.key + " = " + value
				check("file", nil, inFile, shown(c.later))
			}
			check("variable over file", map[string]string{c.names[0]: " " + c.first + " "}, inFile, shown(c.first))
			if len(c.names) > 1 {
				check("old variable", map[string]string{c.names[1]: c.first}, inFile, shown(c.first))
				check("new variable over old", map[string]string{c.names[0]: c.first, c.names[1]: c.later}, "", shown(c.first))
				check("blank new variable is unset", map[string]string{c.names[0]: "  ", c.names[1]: c.first}, "", shown(c.first))
			}
			if c.key != "" {
				check("blank variable is unset", map[string]string{c.names[0]: " "}, inFile, shown(c.later))
			}
		})
	}
}

func hostName(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFilesAreMergedInTheSDKsOrder(t *testing.T) {
	const api = "api.api_server = http://"
	for _, c := range []struct {
		rule  string
		files map[string]string
		env   map[string]string
		want  string // the API server
		from  string // part of where it came from
	}{
		{"clearml.conf over trains.conf", map[string]string{"home/trains.conf": someKeys + api + "trains", "home/clearml.conf": api + "clearml"}, nil, "http://clearml", "home/clearml.conf: api.api_server"},
		{"trains.conf stays where clearml.conf is silent", map[string]string{"home/trains.conf": someKeys + api + "trains", "home/clearml.conf": "x = 1"}, nil, "http://trains", "home/trains.conf"},
		{"a named file replaces both", map[string]string{"home/clearml.conf": api + "home", "other.conf": someKeys + api + "other"}, map[string]string{"CLEARML_CONFIG_FILE": "ROOT/other.conf"}, "http://other", "other.conf"},
		{"the old name works", map[string]string{"home/clearml.conf": api + "home", "other.conf": someKeys + api + "other"}, map[string]string{"TRAINS_CONFIG_FILE": "ROOT/other.conf"}, "http://other", "other.conf"},
		{"~ is the home folder", map[string]string{"home/my.conf": someKeys + api + "mine"}, map[string]string{"CLEARML_CONFIG_FILE": "~/my.conf"}, "http://mine", "my.conf"},
		{"a folder lies below the files", map[string]string{"dir/default/api.conf": "api_server = http://dir", "home/clearml.conf": someKeys}, map[string]string{"CLEARML_CONFIG_PATH": "ROOT/dir"}, "http://dir", "api.conf"},
		{"a missing named file is an empty one", nil, map[string]string{"CLEARML_CONFIG_FILE": "ROOT/none.conf", "CLEARML_API_ACCESS_KEY": "k", "CLEARML_API_SECRET_KEY": "s"}, "https://api.clear.ml", "default"},
		{"trailing slashes go", map[string]string{"home/clearml.conf": someKeys + api + "a:8008/api//"}, nil, "http://a:8008/api", "clearml.conf"},
		{"files may use the environment", map[string]string{"home/clearml.conf": someKeys + "api.api_server = \"http://\"${MYHOST}\":8008\""}, map[string]string{"MYHOST": "here"}, "http://here:8008", "clearml.conf"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			config, err := newPlace(t, c.files, c.env).load()
			if err != nil {
				t.Fatal(err)
			}
			if config.API.Value != c.want || !strings.Contains(config.API.From, c.from) {
				t.Errorf("API = %+v, want %s from %s", config.API, c.want, c.from)
			}
		})
	}
}

func TestOtherServersAreDerived(t *testing.T) {
	for _, c := range []struct{ api, web, files string }{
		{"https://api.clear.ml", "https://app.clear.ml", "https://files.clear.ml"},
		{"https://api.example.com", "https://app.example.com", "https://files.example.com"},
		{"http://host:8008", "http://host:8080", "http://host:8081"},
		{"http://[::1]:8008", "http://[::1]:8080", "http://[::1]:8081"},
		{"http://host:9999", "", ""},
	} {
		p := newPlace(t, map[string]string{"home/clearml.conf": someKeys}, map[string]string{"CLEARML_API_HOST": c.api})
		config, err := p.load()
		if err != nil {
			t.Fatal(err)
		}
		if config.Web.Value != c.web || config.Files.Value != c.files {
			t.Errorf("%s: web %q, files %q; want %q, %q", c.api, config.Web.Value, config.Files.Value, c.web, c.files)
		}
	}
}

const (
	localEndpoints   = `{"api":"http://127.0.0.1:8008","files":"http://127.0.0.1:8081","serve":"http://127.0.0.1:8080","pid":"12"}`
	localCredentials = `{"access_key":"LOCAL","secret_key":"localsecret"}`
)

func TestLocalServerIsTakenWhenNothingElseIsConfigured(t *testing.T) {
	local := map[string]string{"data/endpoints.json": localEndpoints, "data/credentials.json": localCredentials}
	with := func(name, text string) map[string]string {
		files := map[string]string{name: text}
		maps.Copy(files, local)
		return files
	}
	for _, c := range []struct {
		rule     string
		files    map[string]string
		env      map[string]string
		api, key string // "" api: not configured
	}{
		{"nothing else", local, nil, "http://127.0.0.1:8008", "LOCAL"},
		{"a clearml.conf without a server", with("home/clearml.conf", "sdk.x = 1"), nil, "http://127.0.0.1:8008", "LOCAL"},
		{"a configured server wins", with("home/clearml.conf", someKeys+"api.api_server = http://other:8008"), nil, "http://other:8008", "fileKey"},
		{"configured credentials win", local, map[string]string{"CLEARML_API_ACCESS_KEY": "k", "CLEARML_API_SECRET_KEY": "s"}, "https://api.clear.ml", "k"},
		{"the address of the local one gets its credentials", local, map[string]string{"CLEARML_API_HOST": "http://127.0.0.1:8008/"}, "http://127.0.0.1:8008", "LOCAL"},
		{"another address never gets them", local, map[string]string{"CLEARML_API_HOST": "http://stranger:8008"}, "", ""},
		{"a running server without credentials", map[string]string{"data/endpoints.json": localEndpoints}, nil, "", ""},
		{"half of the credentials is none", local, map[string]string{"CLEARML_API_SECRET_KEY": "s"}, "", ""},
	} {
		t.Run(c.rule, func(t *testing.T) {
			config, err := newPlace(t, c.files, c.env).load()
			if c.api == "" {
				if !errors.Is(err, clearml.ErrNotConfigured) {
					t.Errorf("config %+v, error %v; want ErrNotConfigured", config.API, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if config.API.Value != c.api || config.AccessKey.Value != c.key {
				t.Errorf("API %q, key %q; want %q, %q", config.API.Value, config.AccessKey.Value, c.api, c.key)
			}
		})
	}
}

func TestMissingConfigurationSaysWhereWasLookedAndWhatToDo(t *testing.T) {
	p := newPlace(t, map[string]string{"home/clearml.conf": "api.api_server = http://somewhere:8008"}, nil)
	_, err := p.load()
	if !errors.Is(err, clearml.ErrNotConfigured) || !errors.Is(err, clearml.ErrUnauthorized) {
		t.Fatalf("error = %v, want ErrNotConfigured", err)
	}
	for _, part := range []string{
		"CLEARML_API_ACCESS_KEY", p.home + "/trains.conf: does not exist", p.home + "/clearml.conf: has no api.credentials",
		p.data + "/endpoints.json: does not exist", "http://somewhere:8008", "clearml-serving env", "clearml-init",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q:\n%v", part, err)
		}
	}
	if _, err := clearml.New(clearml.Options{}); !errors.Is(err, clearml.ErrNotConfigured) {
		t.Errorf("New without a server: %v", err)
	}
}

func TestBadConfigurationNamesTheFile(t *testing.T) {
	for _, c := range []struct {
		rule  string
		files map[string]string
		env   map[string]string
		want  []string
	}{
		{"syntax", map[string]string{"home/clearml.conf": "api {\n  x = \"\n}"}, nil, []string{"home/clearml.conf", "line 2, column 7"}},
		{"scheme", map[string]string{"home/clearml.conf": someKeys + "api.api_server = localhost:8008"}, nil, []string{"localhost:8008", "http://", "clearml.conf"}},
		{"seconds", map[string]string{"home/clearml.conf": someKeys + "api.auth.token_expiration_threshold_sec = soon"}, nil, []string{"clearml.conf", `"soon"`}},
		{"retry codes", map[string]string{"home/clearml.conf": someKeys}, map[string]string{"CLEARML_API_EXTRA_RETRY_CODES": "408,never"}, []string{"CLEARML_API_EXTRA_RETRY_CODES", `"never"`}},
		{"local file", map[string]string{"data/endpoints.json": "{"}, nil, []string{"data/endpoints.json"}},
		{"unreadable file", map[string]string{"home/clearml.conf/x": ""}, nil, []string{"home/clearml.conf"}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			_, err := newPlace(t, c.files, c.env).load()
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
		})
	}
}

func TestCertificateSettingIsABooleanOrAFile(t *testing.T) {
	for value, want := range map[string]clearml.TLS{
		"true": {}, "1": {}, "False": {Insecure: true}, "no": {Insecure: true}, "~/ca.pem": {CAFile: "HOME/ca.pem"}, "$CERTS/ca.pem": {CAFile: "/etc/certs/ca.pem"},
	} {
		p := newPlace(t, map[string]string{"home/clearml.conf": someKeys}, map[string]string{"CLEARML_API_HOST_VERIFY_CERT": value, "CERTS": "/etc/certs"})
		config, err := p.load()
		if err != nil {
			t.Fatal(err)
		}
		got := config.TLS
		got.CAFile, got.From = strings.Replace(got.CAFile, p.home, "HOME", 1), ""
		if got != want {
			t.Errorf("%s: %+v, want %+v", value, got, want)
		}
	}
	if _, err := clearml.New(clearml.Options{Config: clearml.Config{API: clearml.Setting{Value: "https://x"}, TLS: clearml.TLS{CAFile: "/nowhere.pem", From: "the test"}}}); err == nil || !strings.Contains(err.Error(), "the test") {
		t.Errorf("a missing file of certificates: %v", err)
	}
}

func TestStorageSectionsStayReachable(t *testing.T) {
	p := newPlace(t, map[string]string{"home/clearml.conf": someKeys + `
sdk.aws.s3 { key: K, credentials: [ { host: "minio:9000", secure: false } ] }
sdk.storage.path_substitution = [ { registered_prefix = "http://fileserver:8081", local_prefix = "http://localhost:8081" } ]
api.auth.token_expiration_threshold_sec = 60`}, nil)
	config, err := p.load()
	if err != nil {
		t.Fatal(err)
	}
	if key, _ := config.Storage.Text("sdk.aws.s3.key"); key != "K" {
		t.Errorf("sdk.aws.s3.key = %q", key)
	}
	substitutions := config.Storage.List("sdk.storage.path_substitution")
	if len(substitutions) != 1 {
		t.Fatalf("path_substitution = %v", substitutions)
	}
	if prefix, _ := substitutions[0].(*hocon.Object).Text("local_prefix"); prefix != "http://localhost:8081" {
		t.Errorf("local_prefix = %q", prefix)
	}
	if config.TokenMargin != time.Minute {
		t.Errorf("TokenMargin = %v", config.TokenMargin)
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	p := newPlace(t, map[string]string{"home/clearml.conf": "api.credentials { access_key: k, secret_key: verySecret }"}, nil)
	config, err := p.load()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, _ = fmt.Fprintf(&b, "%v %+v %#v %s\n", config, config, config, config.SecretKey)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "config", config, "secret", config.SecretKey)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "config", config, "secret", config.SecretKey)
	encoded, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(encoded)
	if strings.Contains(b.String(), "verySecret") {
		t.Errorf("the secret is shown: %s", b.String())
	}
	if !strings.Contains(b.String(), "[redacted]") || config.SecretKey.Reveal() != "verySecret" {
		t.Error("the secret is neither marked nor revealed")
	}
}

func TestVariablesMakeTheSDKUseTheSameServer(t *testing.T) {
	p := newPlace(t, map[string]string{"home/clearml.conf": someKeys + "api { api_server = http://a:8008, verify_certificate = false }"}, nil)
	config, err := p.load()
	if err != nil {
		t.Fatal(err)
	}
	again, err := place{home: t.TempDir(), env: config.Variables()}.load()
	if err != nil {
		t.Fatal(err)
	}
	if again.API.Value != config.API.Value || again.Files.Value != config.Files.Value || again.Web.Value != config.Web.Value ||
		again.AccessKey.Value != "fileKey" || again.SecretKey.Reveal() != "fileSecret" || !again.TLS.Insecure {
		t.Errorf("got %+v, want %+v", again, config)
	}
}
