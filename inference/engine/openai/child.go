package openai

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/sidecar"
)

// ChildOptions are for servers that are children of this process.
type ChildOptions struct {
	// Env is their environment.
	Env []string
	// Guard is the command line of the guard of a child; see sidecar.Options.
	Guard []string
	// Refused says why no children may be started, "" if they may.
	Refused string
}

// EngineArgsVariable is the environment variable with arguments of vLLM, as JSON.
const EngineArgsVariable = "VLLM_ENGINE_ARGS"

// child is a server that belongs to one endpoint.
type child struct {
	server *sidecar.Server
	stop   context.CancelFunc
	done   chan struct{}
}

// The words of a command that are replaced.
const (
	wordModel = "<model>" // the model's file or folder
	wordName  = "<name>"  // the name under which the server is to serve it
	wordHost  = "<host>"
	wordPort  = "<port>"
	wordKey   = "<key>" // that requests will have
)

const loopback = "127.0.0.1"

// startChild starts the endpoint's own server, and waits until it is ready.
func (m *model) startChild(ctx context.Context, spec engine.Spec, around *code) error {
	options := m.e.o.Child
	if options.Refused != "" {
		return &engine.LoadError{Text: options.Refused}
	}
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	m.key = newID("")
	address := "http://" + net.JoinHostPort(loopback, strconv.Itoa(port))
	words, err := m.command(spec, around.loaded(), port)
	if err != nil {
		return &engine.LoadError{Text: err.Error(), Final: true, Err: err}
	}
	if m.settings.Model == "" {
		m.settings.Model = string(m.url) // the name that the command gives it
	}
	env := append(slices.Clone(options.Env), "VLLM_API_KEY="+m.key, "LLAMA_API_KEY="+m.key)
	name := filepath.Base(words[0])
	last := &probed{}
	var server *sidecar.Server
	log := m.e.o.Logger.With("endpoint", m.url)
	server = sidecar.New(sidecar.Options{
		Name: name + " of " + string(m.url),
		Command: func(context.Context) (sidecar.Command, error) {
			return sidecar.Command{Path: words[0], Args: words[1:], Env: env}, nil
		},
		Probe: func(ctx context.Context) error { return m.probe(ctx, address, last) },
		Stall: max(m.settings.Stall, startStall), Hang: hangLimit, Guard: options.Guard, Secrets: []string{m.key}, Logger: log,
		Line: func(line string) {
			level := slog.LevelInfo
			if server.Status().Ready() { // servers tell of each request
				level = slog.LevelDebug
			}
			log.Log(context.Background(), level, "server output", "server", name, "line", line)
		},
	})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.child = &child{server: server, stop: stop, done: make(chan struct{})}
	go func() { // close ends and awaits it
		defer close(m.child.done)
		_ = server.Run(running) // it ends with its context
	}()
	if err := m.child.ready(ctx); err != nil {
		return err
	}
	return m.open([]string{address})
}

const (
	// startStall bounds the time without any progress of a server that starts: models are large.
	startStall = 10 * time.Minute
	// hangLimit is how long a server that was ready may not work before it is started again.
	hangLimit = 5 * time.Second
)

// ready waits until the server is ready. The first process that ends by itself is a failed load, which is tried again
// later as all are.
func (c *child) ready(ctx context.Context) error {
	for {
		changed := c.server.Changed()
		status := c.server.Status()
		switch {
		case status.Ready():
			return nil
		case status.Restarts > 0:
			lines := status.LastLines
			return &engine.LoadError{Text: fmt.Sprintf("%s: %s. Its last lines:\n%s", status.Name, status.LastDeath, strings.Join(lines[max(0, len(lines)-shownLines):], "\n"))}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// shownLines are how many lines of a log an error has.
const shownLines = 20

// freePort finds a port that nothing listens on.
func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close() //nolint:errcheck // it was open for its number only
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find a free port: it has no number")
	}
	return at.Port, nil
}

// command is the command line of the server.
func (m *model) command(spec engine.Spec, loaded map[string]any, port int) ([]string, error) {
	replace := strings.NewReplacer(wordModel, spec.ModelPath, wordName, string(spec.URL), wordHost, loopback, wordPort, strconv.Itoa(port), wordKey, m.key)
	if len(m.settings.Command) > 0 {
		var words []string
		for _, word := range m.settings.Command {
			if strings.Contains(word, wordModel) && spec.ModelPath == "" {
				return nil, errors.New("the command has the word " + wordModel + ", and the endpoint has no model: give one with --model-id, or --name and --project")
			}
			words = append(words, replace.Replace(word))
		}
		return words, nil
	}
	if spec.ModelPath == "" {
		return nil, errors.New("engine vllm needs a model: give one with --model-id, or --name and --project")
	}
	args, err := engineArgs(variable(m.e.o.Env, EngineArgsVariable))
	if err != nil {
		return nil, err
	}
	maps.Copy(args, m.settings.EngineArgs)
	for _, ours := range []string{"model", "served_model_name", "host", "port", "api_key"} {
		delete(args, ours)
	}
	words := []string{"vllm", "serve", spec.ModelPath, "--host", loopback, "--port", strconv.Itoa(port), "--served-model-name", string(spec.URL)}
	words = append(words, flagsOf(args)...)
	return append(words, flagsOf(codeArgs(loaded))...), nil
}

// engineArgs reads VLLM_ENGINE_ARGS, whose quotes the original removes.
func engineArgs(text string) (map[string]any, error) {
	args := map[string]any{}
	text = strings.TrimSpace(strings.ReplaceAll(text, "'", ""))
	if text == "" {
		return args, nil
	}
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		return nil, fmt.Errorf("the environment variable VLLM_ENGINE_ARGS is no JSON object: %w", err)
	}
	return args, nil
}

// codeFlags are the arguments of vLLM for what the method load of the original's example returns.
var codeFlags = map[string]string{ //nolint:gochecknoglobals // a constant table
	"lora_modules": "lora_modules", "prompt_adapters": "prompt_adapters", "response_role": "response_role", "chat_template": "chat_template",
	"return_tokens_as_token_ids": "return_tokens_as_token_ids", "max_log_len": "max_log_len",
	"reasoning_parser": "reasoning_parser", "enable_auto_tools": "enable_auto_tool_choice", "tool_parser": "tool_call_parser",
	"expand_tools_even_if_tool_choice_none": "expand_tools_even_if_tool_choice_none", "enable_prompt_tokens_details": "enable_prompt_tokens_details",
	"enable_force_include_usage": "enable_force_include_usage", "chat_template_content_format": "chat_template_content_format",
}

// codeArgs are vLLM's arguments for what the method load has returned.
func codeArgs(loaded map[string]any) map[string]any {
	args := map[string]any{}
	for _, group := range []string{"vllm_model_config", "chat_settings"} {
		settings, _ := loaded[group].(map[string]any)
		for name, value := range settings {
			flag := codeFlags[name]
			if flag == "" || value == false { // vLLM's switches of its API are off without an argument
				continue
			}
			args[flag] = value
		}
	}
	return args
}

// flagsOf are arguments as vLLM's command line takes them.
func flagsOf(args map[string]any) (words []string) {
	for _, name := range slices.Sorted(maps.Keys(args)) {
		flag := "--" + strings.ReplaceAll(name, "_", "-")
		switch value := args[name].(type) {
		case nil:
		case bool:
			if value {
				words = append(words, flag)
			} else if !strings.HasPrefix(name, "disable_") { // those have no opposite
				words = append(words, "--no-"+flag[2:])
			}
		case []any:
			words = append(words, flag)
			for _, item := range value {
				words = append(words, wordOf(item))
			}
		default:
			words = append(words, flag, wordOf(value))
		}
	}
	return words
}

func wordOf(value any) string {
	if text, ok := value.(string); ok {
		return strings.Trim(text, `"'`)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// cause is what is known of the server's end, "" while it runs.
func (c *child) cause() string {
	status := c.server.Status()
	switch {
	case status.Ready() || status.LastDeath == "":
		return ""
	case status.State == sidecar.StateUnresponsive:
		return " (" + status.Reason + ")"
	}
	return " (" + status.LastDeath + ")"
}

// report completes the report of the endpoint.
func (c *child) report(r *serving.ModelReport) {
	status := c.server.Status()
	if status.Restarts > 0 && r.LastDeath == "" {
		r.LastDeath, r.LastLines = status.LastDeath, status.LastLines
	}
	r.Restarts += status.Restarts
	if !status.Ready() {
		r.State, r.Reason = serving.StateDegraded, fmt.Sprintf("its server is %s: %s", status.State, status.Reason)
	}
}

// close ends the server.
func (c *child) close() {
	c.stop()
	<-c.done
}
