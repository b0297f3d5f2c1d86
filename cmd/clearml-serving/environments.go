package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"clearmlserving/serving"
	"clearmlserving/worker/venv"
)

// installerVariables are what decides where an installer fetches packages and how
// it gets there. They may hold a registry's password, so user code does not find
// them; and no credentials of ClearML are among them.
var installerVariables = []string{
	"PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NETRC",
	"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_CONFIG_FILE",
	"PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CACHE_DIR", "PIP_CONSTRAINT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES", "PIP_ONLY_BINARY", "PIP_PREFER_BINARY",
	"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_STRATEGY", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE",
	"UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_CONFIG_FILE", "UV_CACHE_DIR", "UV_CONSTRAINT", "UV_HTTP_TIMEOUT", "UV_LINK_MODE", "UV_KEYRING_PROVIDER",
	"CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "LD_LIBRARY_PATH", "CUDA_HOME",
}

// networkVariables decide how programs make connections: ours, installers and user
// code alike.
var networkVariables = []string{
	"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
}

// fullPath is the value of a variable for a program that runs in another folder.
func fullPath(name, value string) string {
	switch name {
	case "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE":
		if full, err := filepath.Abs(value); err == nil && value != "" {
			return full
		}
	}
	return value
}

// passed are the variables of ours that a child process is given.
func (a *app) passed(names ...[]string) (env []string) {
	for _, name := range slices.Concat(names...) {
		if value, ok := a.sys.env(name); ok {
			env = append(env, name+"="+fullPath(name, value))
		}
	}
	return env
}

// installerEnv is the environment that installers run in.
func (a *app) installerEnv() []string { return a.passed(installerVariables, networkVariables) }

// environments makes Python environments in the data folder, or finds them among those that were made before.
func (a *app) environments(dataDir string, made madeFolders, log *slog.Logger) *venv.Maker {
	o := venv.Options{Dir: filepath.Join(dataDir, "environments"), Made: made.environments, Constraints: made.constraints, Env: a.installerEnv(), Logger: log}
	if made.writes && made.environments != "" {
		o.Dir, o.Made = made.environments, ""
	}
	return venv.New(o)
}

// extraPackages are the words of CLEARML_EXTRA_PYTHON_PACKAGES, split as the
// original's shell does: by blanks, quotes mean nothing.
func (a *app) extraPackages() []string { return strings.Fields(a.text("extra-python-packages")) }

// checkEnvironment refuses an environment that could never be made.
func (f *endpointFlags) checkEnvironment(aux any, codeMayCome bool) error {
	own, err := serving.OwnEnvironment(f.engine, aux)
	if err != nil {
		return fmt.Errorf("argument --aux-config: %w", err)
	}
	if !own || (f.preprocess == "" && codeMayCome) {
		return nil
	}
	if f.preprocess == "" {
		return hint(errors.New("environment=own needs code: it is made of the code folder's "+venv.RequirementsFile), "Try: add --preprocess ./my_code/")
	}
	file := filepath.Join(f.preprocess, venv.RequirementsFile)
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return hint(fmt.Errorf("environment=own: there is no file %s", file),
			"Try: put the code into a folder, as __init__.py, with a %s beside it, and give the folder to --preprocess", venv.RequirementsFile)
	}
	return nil
}
