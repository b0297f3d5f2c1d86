package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// standForLLM stands for a server of the OpenAI API: llm HOST PORT NAME. Its model answers with the double of a number.
func standForLLM(s *standIn, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("llm HOST PORT NAME, and not %q", args)
	}
	name, key := args[2], os.Getenv("LLAMA_API_KEY")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"object":"list","data":[{"id":%q,"object":"model","created":1,"owned_by":"chaos"}]}`, name)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		if key != "" && r.Header.Get("Authorization") != "Bearer "+key {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var asked struct {
			Stream   bool
			Messages []struct{ Content string }
		}
		n := 0
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&asked)
		if err == nil && len(asked.Messages) == 1 {
			n, err = strconv.Atoi(asked.Messages[0].Content)
		}
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.compute(r.Context())
		answerChat(w, asked.Stream, name, strconv.Itoa(2*n))
	})
	return s.serve(mux, []string{net.JoinHostPort(args[0], args[1])}, nil, nil)
}

// answerChat answers with a text; in a stream each character is a piece.
func answerChat(w http.ResponseWriter, stream bool, name, text string) {
	const usage = `{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}`
	if !stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":%s}`, name, text, usage)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(event string) {
		_, _ = fmt.Fprintf(w, "data: %s\n\n", event)
		_ = http.NewResponseController(w).Flush() // the client may be gone
	}
	piece := func(delta, finish string) {
		send(fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":%q,"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}`, name, delta, finish))
	}
	piece(`{"role":"assistant","content":""}`, "null")
	for digit := range strings.SplitSeq(text, "") {
		piece(fmt.Sprintf(`{"content":%q}`, digit), "null")
	}
	piece("{}", `"stop"`)
	send(fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":%q,"choices":[],"usage":%s}`, name, usage))
	send("[DONE]")
}
