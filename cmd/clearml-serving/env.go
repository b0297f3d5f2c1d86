package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/listen"
	"clearmlserving/outbound"
	"clearmlserving/retry"
)

func envCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print what the ClearML SDK needs to use the local server",
		Long: `Print what the ClearML SDK and this program need to use the server that
"clearml-serving up" or "clearml-serving server" runs on this machine. It holds
the secret key: mind where you send it. Where a proxy is set, NO_PROXY is extended
by this machine, which the SDK would ask through the proxy.

A server that is starting is waited for, so that "clearml-serving up &" may be the line
before. Errors go to stderr, since a shell evaluates stdout.`,
		Example: `  eval "$(clearml-serving env)"
  clearml-serving env --format conf > ~/clearml.conf`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.env(cmd.Context(), format)
			if err != nil && !a.print.json && cmd.Context().Err() == nil {
				put(a.sys.stderr, "\nError: %s", errorText(err))
				if next := errorHint(err); next != "" {
					put(a.sys.stderr, "%s", next)
				}
				return fmt.Errorf("%w: %w", errToldAlready, err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", "sh", "sh (lines for a shell), json, or conf (a clearml.conf)")
	oneOf(cmd, "format", "sh", "json", "conf")
	return cmd
}

// localServer is what a server on this machine has told about itself.
type localServer struct {
	dir                  string
	api, web, files      string
	accessKey, secretKey string
}

// variables are what the SDK reads, and where this program finds the rest.
func (s localServer) variables() object {
	return object{
		{"CLEARML_API_HOST", s.api},
		{"CLEARML_WEB_HOST", s.web},
		{"CLEARML_FILES_HOST", s.files},
		{"CLEARML_API_ACCESS_KEY", s.accessKey},
		{"CLEARML_API_SECRET_KEY", s.secretKey},
		{"CLEARML_SERVING_HOME", s.dir},
	}
}

// serverStart is how long env waits for a server that may be starting.
const serverStart = 20 * time.Second

// startingServer is the server of the data folder, which may have been started just now.
func (a *app) startingServer(ctx context.Context) (localServer, error) {
	server, err := a.localServer()
	for begun, told := time.Now(), false; errors.Is(err, errNotFound) && time.Since(begun) < serverStart; server, err = a.localServer() {
		if !told && time.Since(begun) > time.Second {
			put(a.sys.stderr, "Waiting for a ClearML server on the data folder %s", server.dir)
			told = true
		}
		if err := retry.Sleep(ctx, 100*time.Millisecond); err != nil {
			return server, err
		}
	}
	return server, err
}

func (a *app) env(ctx context.Context, format string) error {
	server, err := a.startingServer(ctx)
	if err != nil {
		return err
	}
	if a.print.json {
		format = "json"
	}
	variables := server.variables()
	// With a proxy, the SDK asks it for this machine too, other than this program.
	names, value := outbound.Unproxied(a.sys.env, server.api, server.web, server.files)
	for _, name := range names {
		variables = append(variables, field{name, value})
	}
	switch format {
	case "json":
		text, err := indented(variables)
		if err != nil {
			return err
		}
		put(a.sys.stdout, "%s", text)
	case "conf":
		put(a.sys.stdout, `# The ClearML server of %s
api {
    api_server: %s
    web_server: %s
    files_server: %s
    credentials {
        access_key: %s
        secret_key: %s
    }
}`, server.dir, confText(server.api), confText(server.web), confText(server.files), confText(server.accessKey), confText(server.secretKey))
		for _, name := range names {
			put(a.sys.stderr, "Warning: a proxy is set, and the SDK asks it for this server too: export %s=%s", name, shellWord(value))
		}
	default:
		for _, v := range variables {
			put(a.sys.stdout, "export %s=%s", v.key, shellWord(fmt.Sprint(v.value)))
		}
	}
	return nil
}

// confText quotes a text for clearml.conf.
func confText(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// announced are the addresses in the data folder's endpoints.json, none if it has no such file.
func announced(dir string) (map[string]string, error) {
	endpoints, err := listen.ReadRegistry(filepath.Join(dir, "endpoints.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no addresses
	}
	if errors.Is(err, listen.ErrDamaged) {
		err = hint(err, "Try: start the server again (clearml-serving up); it writes the file anew. Without a server on this data folder, remove the file")
	}
	return endpoints.URLs, err
}

// localServer reads what the server of the data folder has written there.
func (a *app) localServer() (localServer, error) {
	dir, err := a.dataDir()
	if err != nil {
		return localServer{}, err
	}
	s := localServer{dir: dir}
	urls, err := announced(dir)
	if err != nil {
		return s, err
	}
	if urls["api"] == "" {
		return s, hint(notFound("no ClearML server has run on the data folder %s", dir), "Try: clearml-serving up --data-dir %s", shellWord(dir))
	}
	s.api, s.files, s.web = urls["api"], urls["files"], firstOf(urls["web"], urls["api"])
	file := filepath.Join(dir, "credentials.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return s, hint(fmt.Errorf("read the credentials of the local server: %w", err), "Try: start it again; it makes new credentials when the file is lost")
	}
	var credentials struct {
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}
	if err := json.Unmarshal(text, &credentials); err != nil || credentials.AccessKey == "" || credentials.SecretKey == "" {
		return s, hint(fmt.Errorf("read the credentials of the local server: %s is damaged", file), "Try: remove the file and start the server again; it makes new credentials")
	}
	s.accessKey, s.secretKey = credentials.AccessKey, credentials.SecretKey
	return s, nil
}
