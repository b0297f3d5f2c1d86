// Package torchserve describes how TorchServe is run: the program and its version, its configuration on
// loopback addresses with keys, and the probe that says whether it works. Package sidecar supervises it.
package torchserve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"clearmlserving/atomicfile"
	"clearmlserving/process"
	"clearmlserving/sidecar"
)

// Version is the last release of TorchServe, and the only one that is run: there will be no other.
const Version = "0.12.0"

// Options of a server.
type Options struct {
	// Dir is the folder of the server's files: its store of archives, its keys, its logs.
	Dir string
	// Python is an interpreter with the package torchserve, and Java the program that runs the server.
	Python, Java string
	// Port is the first of five ports: inference, management and metrics over HTTP, inference and management over gRPC.
	Port int
	// MaxBody bounds requests and answers, in bytes.
	MaxBody int64
	// VMArgs are arguments for Java.
	VMArgs []string
	// Env is the environment of the server and of the handlers.
	Env []string
}

// Server says where a server is, for instances on the same machine.
type Server struct {
	Inference  string `json:"inference"`
	Management string `json:"management"`
	Metrics    string `json:"metrics"`
	GRPC       string `json:"grpc"`
	Admin      string `json:"grpc_management"`
	Store      string `json:"model_store"`
	Keys       string `json:"key_file"`
	Log        string `json:"model_log"`
	Operators  string `json:"operators,omitempty"` // of the role
}

// Ports is the number of ports that a server takes.
const Ports = 5

const loopback = "127.0.0.1"

func at(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// Where is the place of a server with these options.
func (o Options) Where() Server {
	return Server{
		Inference: "http://" + at(o.Port), Management: "http://" + at(o.Port+1), Metrics: "http://" + at(o.Port+2) + "/metrics", GRPC: at(o.Port + 3), Admin: at(o.Port + 4),
		Store: filepath.Join(o.Dir, "store"), Keys: filepath.Join(o.Dir, "work", "key_file.json"), Log: filepath.Join(o.Dir, "logs", "model_log.log"),
	}
}

// properties is the server's configuration. What it does not name stays as TorchServe has it.
func (o Options) properties() string {
	size := strconv.FormatInt(min(o.MaxBody, 1<<31-1), 10)
	var b strings.Builder
	for _, line := range [][2]string{
		// Nobody else reaches the server, and nobody without a key.
		{"inference_address", "http://" + at(o.Port)},
		{"management_address", "http://" + at(o.Port+1)},
		{"metrics_address", "http://" + at(o.Port+2)},
		{"grpc_inference_address", loopback},
		{"grpc_management_address", loopback},
		{"grpc_inference_port", strconv.Itoa(o.Port + 3)},
		{"grpc_management_port", strconv.Itoa(o.Port + 4)},
		{"disable_token_authorization", "false"},
		// Models are registered by instances, with archives of the store alone.
		{"enable_model_api", "true"},
		{"allowed_urls", "none"},
		{"enable_envvars_config", "false"},
		{"install_py_dep_per_model", "true"},
		{"max_request_size", size},
		{"max_response_size", size},
		{"job_queue_size", "1000"},
		{"metrics_mode", "prometheus"},
		{"disable_system_metrics", "true"},
	} {
		b.WriteString(line[0] + "=" + line[1] + "\n")
	}
	return b.String()
}

// longestSocket is the length of a path that a Unix socket can have, with the name that TorchServe adds.
const longestSocket = 100 - len("/.ts.sock.65535")

// temp is the server's folder for temporary files, such as unpacked archives and its sockets.
func (o Options) temp() string {
	temp := filepath.Join(o.Dir, "tmp")
	for _, folder := range []string{os.TempDir(), "/tmp"} {
		if len(temp) > longestSocket {
			temp = filepath.Join(folder, fmt.Sprintf("clearml-torchserve-%d-%d", os.Getuid(), o.Port))
		}
	}
	return temp
}

// Tidy removes what the server has left in temporary folders, after its end.
func (o Options) Tidy() error { return os.RemoveAll(o.temp()) }

// Prepare makes the server's folders, empties what a former run has left, and returns its command line. It is
// called before each start.
func (o Options) Prepare(ctx context.Context) (sidecar.Command, error) {
	home, err := o.find(ctx, findTime)
	if err != nil {
		return sidecar.Command{}, err
	}
	where := o.Where()
	work, temp := filepath.Dir(where.Keys), o.temp()
	// The server starts without models: instances register theirs again.
	for _, folder := range []string{work, temp, where.Store} {
		if err := os.RemoveAll(folder); err != nil {
			return sidecar.Command{}, err
		}
	}
	for _, folder := range []string{work, where.Store, filepath.Dir(where.Log)} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return sidecar.Command{}, err
		}
	}
	if err := os.Mkdir(temp, 0o700); err != nil { // by this account, not by one that was faster
		return sidecar.Command{}, err
	}
	if info, err := os.Lstat(temp); err != nil || info.Mode().Perm() != 0o700 || !info.IsDir() {
		return sidecar.Command{}, fmt.Errorf("%s is not a folder of this account alone: remove it", temp)
	}
	config := filepath.Join(o.Dir, "config.properties")
	if err := atomicfile.Write(config, []byte(o.properties()), 0o600); err != nil {
		return sidecar.Command{}, err
	}
	args := []string{"-Dmodel_server_home=" + home, "-Djava.io.tmpdir=" + temp}
	args = append(args, o.VMArgs...)
	args = append(args, "-cp", filepath.Join(home, "ts", "frontend", "*"), "org.pytorch.serve.ModelServer",
		"--python", o.Python, "-f", config, "-s", where.Store, "-w", where.Store, "-ncs")
	env := append([]string{"LOG_LOCATION=" + filepath.Dir(where.Log), "METRICS_LOCATION=" + filepath.Dir(where.Log), "TMPDIR=" + temp}, o.Env...)
	return sidecar.Command{Path: o.Java, Args: args, Env: env, Dir: work}, nil
}

// finder prints the version of the package and the folder that it is in, without importing it.
const finder = "import importlib.metadata as m, importlib.util as u; print(m.version('torchserve')); print(u.find_spec('ts').submodule_search_locations[0])"

// findTime bounds the search: the first start of an interpreter from a cold disk takes seconds.
const findTime = 2 * time.Minute

// find returns the folder of the package torchserve.
func (o Options) find(ctx context.Context, limit time.Duration) (home string, err error) {
	var lines []string
	child, err := process.Start(ctx, process.Spec{Path: o.Python, Args: []string{"-c", finder}, Env: o.Env, LogLine: func(s process.Stream, line []byte) {
		if s == process.Stdout {
			lines = append(lines, string(line))
		}
	}})
	if err != nil {
		return "", err
	}
	death, hung, err := child.Await(ctx, limit)
	switch {
	case err != nil:
		return "", err
	case hung:
		return "", fmt.Errorf("%s has not said within %s where its package torchserve is", o.Python, limit)
	}
	if len(lines) != 2 {
		return "", fmt.Errorf("%s has no package torchserve (%s): install torchserve==%s and torch for it, or name another interpreter", o.Python, lastLine(death), Version)
	}
	if lines[0] != Version {
		return "", fmt.Errorf("%s has torchserve %s: only %s is run, the last release", o.Python, lines[0], Version)
	}
	home = filepath.Dir(lines[1])
	if _, err := os.Stat(filepath.Join(home, "ts", "frontend", "model-server.jar")); err != nil {
		return "", fmt.Errorf("the package torchserve of %s has no server: %w", o.Python, err)
	}
	return home, nil
}

func lastLine(d process.Death) string {
	if n := len(d.LastLines); n > 0 {
		return d.LastLines[n-1]
	}
	return d.String()
}

// Probe asks the server for its models, which it answers only if it works, and connects to its ports of gRPC, which it
// opens last. The error says why it does not.
func (o Options) Probe(ctx context.Context, client *http.Client) error {
	text, err := os.ReadFile(o.Where().Keys)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it has not written its keys yet")
	}
	if err != nil {
		return err
	}
	var keys struct {
		Management struct {
			Key string `json:"key"`
		} `json:"management"`
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		return fmt.Errorf("its key file cannot be read: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Where().Management+"/models?limit=1", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+keys.Management.Key)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer))
	if err != nil {
		return err
	}
	var list struct {
		Models *[]any `json:"models"`
		Type   string `json:"type"`
	}
	switch err := json.Unmarshal(body, &list); {
	case err != nil:
		return fmt.Errorf("its list of models is not usable: %w", err)
	case list.Type == "InvalidKeyException": // it has expired; whoever uses it asks for a new one
	case response.StatusCode != http.StatusOK || list.Models == nil:
		return fmt.Errorf("it answers %d to a question for its models", response.StatusCode)
	}
	for _, address := range []string{o.Where().GRPC, o.Where().Admin} {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("it does not answer over gRPC yet: %w", err)
		}
		_ = c.Close() // nothing was sent
	}
	return nil
}

const mostAnswer = 1 << 20

// Scrape returns the server's metrics in Prometheus' text format.
func (o Options) Scrape(ctx context.Context, client *http.Client) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Where().Metrics, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("TorchServe answers %d to a scrape", response.StatusCode)
	}
	return io.ReadAll(io.LimitReader(response.Body, 16*mostAnswer))
}

// FreePort finds five free ports in a row, if possible those that begin with first.
func FreePort(ctx context.Context, first int) (int, error) {
	for attempt := range 50 {
		port := first
		if attempt > 0 {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at(0))
			if err != nil {
				return 0, err
			}
			port = l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of a TCP listener
			_ = l.Close()
		}
		if free(ctx, port) == nil {
			return port, nil
		}
	}
	return 0, errors.New("there are no five free ports in a row")
}

// Free returns the reason why the ports of a server are not free.
func Free(ctx context.Context, port int) error { return free(ctx, port) }

func free(ctx context.Context, port int) error {
	for i := range Ports {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at(port+i))
		if err != nil {
			return err
		}
		_ = l.Close() // it was only a try
	}
	return nil
}
