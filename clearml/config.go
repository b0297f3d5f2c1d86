package clearml

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/hocon"
	"clearmlserving/outbound"
)

// The hosted service, used if credentials but no server are configured.
const (
	hostedAPI   = "https://api.clear.ml"
	hostedWeb   = "https://app.clear.ml"
	hostedFiles = "https://files.clear.ml"
)

// Config is the configuration of the access to a ClearML server, by the rules of the SDK.
type Config struct {
	API, Web, Files  Setting // without trailing slashes; Web and Files may be empty
	AccessKey        Setting
	SecretKey, Token Secret // a token is used instead of the keys
	TLS              TLS
	Network          outbound.Network
	WorkerName       Setting
	// TokenMargin is the time before its expiry at which a token is renewed. Default 6 minutes.
	TokenMargin time.Duration
	// TokenLife is the requested lifetime of a token, 0 for the server's default.
	TokenLife time.Duration
	// MaxAPIVersion bounds the API version of calls, "" for this client's version.
	MaxAPIVersion string
	// ExtraRetryCodes are further HTTP statuses that are retried.
	ExtraRetryCodes []int
	// Storage is the merged content of the configuration files, for the
	// storage's credentials (sdk.aws, sdk.google, sdk.azure, sdk.storage).
	Storage *hocon.Object
}

// ConfigOptions are the sources of the configuration.
type ConfigOptions struct {
	// Env looks up an environment variable. If nil, there are none.
	Env func(name string) (string, bool)
	// HomeDir is the folder of clearml.conf, "" for none.
	HomeDir string
	// DataDir is the data folder of a local server, which is used if nothing else is configured.
	// "" for none.
	DataDir string
	// DataDirFirst prefers the local server, if there is one, to anything that is configured.
	DataDirFirst bool
}

// LoadConfig loads the configuration as the SDK does: files, overridden by the environment. If
// neither names a server, it uses the server of "clearml-serving up" on this machine. A file that
// cannot be read or parsed is an error; a missing file is not.
func LoadConfig(o ConfigOptions) (Config, error) {
	l := &configLoader{options: o}
	if err := l.readFiles(); err != nil {
		return Config{}, err
	}
	c := Config{Storage: l.merged, Network: outbound.FromEnvironment(o.Env), TLS: l.tls()}
	c.API = trimSlash(l.setting("", []string{"api.api_server", "api.host"}, "CLEARML_API_HOST", "TRAINS_API_HOST"))
	c.Web = trimSlash(l.setting("", []string{"api.web_server"}, "CLEARML_WEB_HOST", "TRAINS_WEB_HOST"))
	c.Files = trimSlash(l.setting("", []string{"api.files_server"}, "CLEARML_FILES_HOST", "TRAINS_FILES_HOST"))
	c.AccessKey = l.setting("", []string{"api.credentials.access_key"}, "CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY")
	c.SecretKey = secret(l.setting("", []string{"api.credentials.secret_key"}, "CLEARML_API_SECRET_KEY", "TRAINS_API_SECRET_KEY"))
	c.Token = secret(l.setting("", nil, "CLEARML_AUTH_TOKEN"))
	if err := l.local(&c); err != nil {
		return Config{}, err
	}
	if err := l.complete(&c); err != nil {
		return Config{}, err
	}
	derive(&c)
	c.WorkerName = l.setting("", nil, "CLEARML_WORKER_NAME", "TRAINS_WORKER_NAME")
	if c.WorkerName.Value == "" {
		if host, err := os.Hostname(); err == nil {
			c.WorkerName = Setting{host, "host name"}
		}
	}
	c.MaxAPIVersion = l.setting("", nil, "CLEARML_FORCE_MAX_API_VERSION").Value
	var err error
	if c.TokenMargin, err = seconds(l.setting("360", []string{"api.auth.token_expiration_threshold_sec"})); err != nil {
		return Config{}, err
	}
	if c.TokenLife, err = seconds(l.setting("0", []string{"api.auth.request_token_expiration_sec"})); err != nil {
		return Config{}, err
	}
	c.ExtraRetryCodes, err = l.retryCodes()
	return c, err
}

// LoadStorage loads the parts of the configuration that need no server: the storage's credentials
// and the verification of certificates.
func LoadStorage(o ConfigOptions) (*hocon.Object, TLS, error) {
	l := &configLoader{options: o}
	err := l.readFiles()
	return l.merged, l.tls(), err
}

// configLoader is the state while a configuration is loaded.
type configLoader struct {
	options ConfigOptions
	merged  *hocon.Object
	files   []configFile // in the order in which they were read
	looked  []string
}

type configFile struct {
	path    string
	content *hocon.Object
}

// variable returns the first variable that is not blank.
func (l *configLoader) variable(names ...string) (Setting, bool) {
	for _, name := range names {
		if l.options.Env == nil {
			break
		}
		if v, _ := l.options.Env(name); strings.TrimSpace(v) != "" {
			return Setting{strings.TrimSpace(v), "environment variable " + name}, true
		}
	}
	return Setting{}, false
}

// setting returns a value: variables, then file keys, then the default.
func (l *configLoader) setting(fallback string, keys []string, variables ...string) Setting {
	if s, ok := l.variable(variables...); ok {
		return s
	}
	for _, key := range keys {
		if v, ok := l.merged.Text(key); ok && strings.TrimSpace(v) != "" {
			return Setting{strings.TrimSpace(v), l.origin(key) + ": " + key}
		}
	}
	return Setting{fallback, "default"}
}

// origin is the file that has set a key last.
func (l *configLoader) origin(key string) string {
	for _, file := range slices.Backward(l.files) {
		if _, ok := file.content.Get(key); ok {
			return file.path
		}
	}
	return ""
}

// readFiles merges the configuration files; later files override earlier ones.
func (l *configLoader) readFiles() error {
	l.merged = &hocon.Object{}
	l.looked = append(l.looked, "environment variables CLEARML_API_HOST, CLEARML_API_ACCESS_KEY, CLEARML_API_SECRET_KEY, CLEARML_AUTH_TOKEN")
	if dir, ok := l.variable("CLEARML_CONFIG_PATH", "TRAINS_CONFIG_PATH"); ok {
		if err := l.readFolder(l.expand(dir.Value)); err != nil {
			return err
		}
	}
	if file, ok := l.variable("CLEARML_CONFIG_FILE", "TRAINS_CONFIG_FILE"); ok {
		return l.readFile(l.expand(file.Value), "", " ("+file.From+")")
	}
	if l.options.HomeDir == "" {
		return nil
	}
	for _, name := range []string{"trains.conf", "clearml.conf"} {
		if err := l.readFile(filepath.Join(l.options.HomeDir, name), "", ""); err != nil {
			return err
		}
	}
	return nil
}

// readFolder reads the files of a configuration folder: <dir>/default/api.conf has the values of
// the key "api", and so on.
func (l *configLoader) readFolder(dir string) error {
	root := filepath.Join(dir, "default")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".conf" {
			return err
		}
		relative, err := filepath.Rel(root, strings.TrimSuffix(path, ".conf"))
		if err != nil {
			return err
		}
		return l.readFile(path, strings.ReplaceAll(filepath.ToSlash(relative), "/", "."), "")
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the configuration folder %s: %w", dir, err)
	}
	return nil
}

// readFile merges one file into the configuration, below a key if one is given.
func (l *configLoader) readFile(path, under, note string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		l.looked = append(l.looked, path+note+": does not exist")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the configuration file: %w", err)
	}
	o, err := hocon.Parse(text, hocon.Options{Env: l.options.Env})
	if err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	if under != "" {
		o = hocon.Nest(under, o)
	}
	l.files = append(l.files, configFile{path, o})
	l.merged = hocon.Merge(l.merged, o)
	l.looked = append(l.looked, path+note+": has no api.credentials")
	return nil
}

// local uses the server of this machine's data folder if no other is configured, and its
// credentials if only its address is.
func (l *configLoader) local(c *Config) error {
	first := l.options.DataDirFirst
	configured := c.AccessKey.Value != "" || c.SecretKey.IsSet() || c.Token.IsSet()
	if (configured && !first) || l.options.DataDir == "" {
		return nil
	}
	var endpoints map[string]string
	var keys struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}
	file := filepath.Join(l.options.DataDir, "endpoints.json")
	if found, err := l.readLocal(file, &endpoints); err != nil || !found {
		return err
	}
	credentials := filepath.Join(l.options.DataDir, "credentials.json")
	if found, err := l.readLocal(credentials, &keys); err != nil || !found {
		return err
	}
	api := strings.TrimRight(endpoints["api"], "/")
	if api == "" || (c.API.Value != "" && c.API.Value != api && !first) {
		l.looked = append(l.looked, file+": is another server than "+c.API.Value)
		return nil
	}
	if first {
		c.API, c.Web, c.Files = Setting{}, Setting{}, Setting{}
	}
	if c.API.Value == "" {
		c.API = Setting{api, file}
		if web := strings.TrimRight(endpoints["web"], "/"); c.Web.Value == "" && web != "" {
			c.Web = Setting{web, file}
		}
	}
	if files := strings.TrimRight(endpoints["files"], "/"); c.Files.Value == "" && files != "" {
		c.Files = Setting{files, file}
	}
	c.AccessKey = Setting{keys.AccessKey, credentials}
	c.SecretKey = NewSecret(keys.SecretKey, credentials)
	c.Token = Secret{}
	return nil
}

func (l *configLoader) readLocal(file string, into any) (bool, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		l.looked = append(l.looked, file+": does not exist (no local server has run there)")
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the local server's data folder: %w", err)
	}
	// Other programs may add values that are not texts; they are ignored.
	var odd *json.UnmarshalTypeError
	if err := json.Unmarshal(text, into); err != nil && !errors.As(err, &odd) {
		return false, fmt.Errorf("read the local server's data folder: %s is damaged (%w): remove it and start the server again, which writes a new one", file, err)
	}
	return true, nil
}

// complete checks that there are credentials, and uses the hosted server if only they are given, as
// the SDK does.
func (l *configLoader) complete(c *Config) error {
	if c.Token.IsSet() {
		c.AccessKey, c.SecretKey = Setting{}, Secret{}
	} else if c.AccessKey.Value == "" || !c.SecretKey.IsSet() {
		switch {
		case c.AccessKey.Value != "":
			l.looked = append(l.looked, "an access key is set by "+c.AccessKey.From+", but no secret key")
		case c.SecretKey.IsSet():
			l.looked = append(l.looked, "a secret key is set by "+c.SecretKey.From+", but no access key")
		case c.API.Value != "":
			l.looked = append(l.looked, "the server "+c.API.Value+" is set by "+c.API.From+", but no credentials")
		}
		return &NotConfiguredError{Looked: l.looked}
	}
	if c.API.Value == "" {
		c.API = Setting{hostedAPI, "default"}
	}
	if !strings.HasPrefix(c.API.Value, "http://") && !strings.HasPrefix(c.API.Value, "https://") {
		return fmt.Errorf("the ClearML API server %q (%s) has no scheme: write it with http:// or https://", c.API.Value, c.API.From)
	}
	return nil
}

// expand replaces a leading ~ and $VARIABLES in a path.
func (l *configLoader) expand(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = l.options.HomeDir + path[1:]
	}
	if !strings.Contains(path, "$") {
		return path
	}
	return os.Expand(path, func(name string) string {
		if l.options.Env != nil {
			if v, ok := l.options.Env(name); ok {
				return v
			}
		}
		return "$" + name
	})
}

// retryCodes reads a list of HTTP statuses: "408,500" in the environment, a list in a file.
func (l *configLoader) retryCodes() ([]int, error) {
	const key = "api.http.extra_retry_codes"
	var words []string
	from := l.origin(key) + ": " + key
	if s, ok := l.variable("CLEARML_API_EXTRA_RETRY_CODES"); ok {
		words, from = strings.Split(s.Value, ","), s.From
	} else {
		for _, item := range l.merged.List(key) {
			words = append(words, fmt.Sprint(item))
		}
	}
	var codes []int
	for _, word := range words {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		code, err := strconv.Atoi(word)
		if err != nil || code < 400 || code > 599 {
			return nil, fmt.Errorf("%s: %q is no HTTP error status", from, word)
		}
		codes = append(codes, code)
	}
	return codes, nil
}

func seconds(s Setting) (time.Duration, error) {
	n, err := strconv.ParseFloat(s.Value, 64)
	if err != nil || n < 0 || n > 1e9 {
		return 0, fmt.Errorf("%s: %q is not a number of seconds", s.From, s.Value)
	}
	return time.Duration(n * float64(time.Second)), nil
}
