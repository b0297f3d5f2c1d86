// Package mcp offers endpoints to agents as tools, over the Model Context Protocol. The protocol is that of the official SDK;
// this package owns which tools there are, what they are described as, and how a call becomes a question to the core. Its
// sessions have no state, so that any instance behind a load balancer can answer.
package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"clearmlserving/inference"
	"clearmlserving/serving"
	"clearmlserving/tracing"
)

// RequestID is the field of a request with its id for logs and user code.
const RequestID = "X-Request-Id"

// Options of a Server.
type Options struct {
	Version string // of this program
	// MaxBody bounds a message.
	MaxBody int64
	// Tracer traces the calls, nil for none.
	Tracer *tracing.Tracer
	Logger *slog.Logger
}

// Server answers agents.
type Server struct {
	core    *inference.Service
	log     *slog.Logger
	tracer  *tracing.Tracer
	server  *sdk.Server
	handler http.Handler

	mu      sync.Mutex // guards the rest
	edition edition
	tools   map[string]*tool // by name
}

// edition changes with what tools are made of.
type edition struct {
	routes any
	tools  *map[serving.EndpointURL]serving.Tool
}

// New creates a Server.
func New(core *inference.Service, o Options) *Server {
	s := &Server{core: core, log: o.Logger, tracer: o.Tracer, tools: map[string]*tool{}}
	s.server = sdk.NewServer(&sdk.Implementation{Name: inference.ServerName, Title: "ClearML Serving", Version: o.Version}, &sdk.ServerOptions{
		Instructions: "Each tool asks a machine learning model.",
		Capabilities: &sdk.ServerCapabilities{Tools: &sdk.ToolCapabilities{ListChanged: true}},
		SetCacheable: func(_ context.Context, _ sdk.Request, c *sdk.Cacheable) { c.CacheScope = "private" }, // keys see different tools
	})
	s.server.AddReceivingMiddleware(s.visible)
	s.handler = sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s.server }, &sdk.StreamableHTTPOptions{
		Stateless: true, JSONResponse: true, MaxRequestBodyBytes: o.MaxBody, PropagateRequestCancellation: true,
	})
	return s
}

// Offers reports whether any endpoint is a tool.
func (s *Server) Offers() bool {
	tools := s.core.Tools()
	return tools != nil && len(*tools) > 0
}

// ServeHTTP answers a message. The caller has checked the origin of the request and that its key is valid for something.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.refresh()
	s.handler.ServeHTTP(w, r)
}

// refreshEvery is the time after which clients that listen are told of a change at the latest.
const refreshEvery = time.Second

// Run tells the clients that listen of changes, until ctx ends.
func (s *Server) Run(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.refresh()
		}
	}
}

// refresh makes the tools anew after a change. The SDK notifies clients.
func (s *Server) refresh() {
	now := edition{s.core.Edition(), s.core.Tools()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now == s.edition || now.tools == nil {
		return
	}
	next := s.describe(*now.tools)
	for name := range s.tools {
		if next[name] == nil {
			s.server.RemoveTools(name)
		}
	}
	for name, t := range next {
		if before := s.tools[name]; before != nil && before.url == t.url && reflect.DeepEqual(before.Tool, t.Tool) {
			t.Tool = before.Tool
			continue
		}
		if err := s.add(t); err != nil {
			s.log.Warn("endpoint is no tool", "endpoint", t.url, "tool", name, "err", err)
			delete(next, name)
		}
	}
	s.edition, s.tools = now, next
}

// add gives a tool to the SDK, which panics if it cannot use a schema.
func (s *Server) add(t *tool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p) //nolint:err113 // the SDK says it so
		}
	}()
	s.server.AddTool(t.Tool, func(ctx context.Context, req *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return s.call(ctx, t, req)
	})
	return nil
}

// describe makes the tools. One whose endpoint is not ready stays: its calls say why. Of two with one name, the one whose
// URL comes later gets another name.
func (s *Server) describe(offered map[serving.EndpointURL]serving.Tool) map[string]*tool {
	catalog, _ := s.core.Catalog(func(url serving.EndpointURL) bool { _, ok := offered[url]; return ok })
	listed := map[serving.EndpointURL]inference.Listed{}
	for _, l := range catalog {
		listed[l.URL] = l
	}
	tools := map[string]*tool{}
	for _, url := range slices.Sorted(maps.Keys(offered)) {
		option := offered[url]
		name := option.Name
		if name == "" {
			name = serving.ToolName(url)
		}
		if tools[name] != nil {
			sum := fnv.New32a()
			_, _ = sum.Write([]byte(url)) // it never fails
			suffix := fmt.Sprintf("_%08x", sum.Sum32())
			name = name[:min(len(name), maxName-len(suffix))] + suffix
		}
		tools[name] = newTool(name, listed[url], url, option.Description)
	}
	return tools
}

// maxName bounds the names of tools.
const maxName = 64

// notOffered are the groups of methods that there are not.
var notOffered = []string{"prompts", "resources", "completion", "logging"} //nolint:gochecknoglobals // a constant table

// visible hides the tools that the key of a request does not open, and what is no tool.
func (s *Server) visible(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (sdk.Result, error) {
		if group, _, _ := strings.Cut(method, "/"); slices.Contains(notOffered, group) { // the SDK answers with empty lists
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: fmt.Sprintf("method not found: %q", method)}
		}
		switch r := req.(type) {
		case *sdk.CallToolRequest:
			if r.Params != nil && !s.opens(r.Extra)(r.Params.Name) {
				return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidParams, Message: fmt.Sprintf("unknown tool %q", r.Params.Name)}
			}
		case *sdk.ListToolsRequest:
			result, err := next(ctx, method, req)
			if list, ok := result.(*sdk.ListToolsResult); ok && err == nil {
				opens := s.opens(r.Extra)
				list.Tools = slices.DeleteFunc(list.Tools, func(t *sdk.Tool) bool { return !opens(t.Name) })
			}
			return result, err
		}
		return next(ctx, method, req)
	}
}

// opens tells which tools the key of a request opens.
func (s *Server) opens(extra *sdk.RequestExtra) func(name string) bool {
	key := s.core.Opens(keyOf(extra))
	s.mu.Lock()
	tools := s.tools
	s.mu.Unlock()
	return func(name string) bool { return tools[name] != nil && key(tools[name].url) }
}

func keyOf(extra *sdk.RequestExtra) string {
	if extra == nil {
		return ""
	}
	return inference.BearerKey(extra.Header.Get("Authorization"))
}

// objectKind reports whether a schema is that of an object.
func objectKind(schema []byte) bool {
	var s struct {
		Type any `json:"type"`
	}
	return json.Unmarshal(schema, &s) == nil && s.Type == "object" && !strings.Contains(string(schema), headerKey)
}

// headerKey is a keyword with which a schema has clients send arguments as headers.
const headerKey = "x-mcp-header"
