package openai_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"clearmlserving/leaktest"
)

func TestMain(all *testing.M) {
	if filepath.Base(os.Args[0]) == "vllm" {
		vllm(os.Args[1:])
		return
	}
	leaktest.Main(all)
}

// vllm stands for vLLM's server: it writes down its arguments, and answers each route with what it was asked.
func vllm(args []string) {
	if slices.Contains(args, "--fail") {
		fmt.Fprintln(os.Stderr, "no such GPU")
		os.Exit(1)
	}
	if err := os.WriteFile(os.Getenv("STAND_IN_CALLS"), []byte(strings.Join(args, "\x00")+"\n"), 0o600); err != nil {
		panic(err)
	}
	flag := func(name string) string { return args[slices.Index(args, name)+1] }
	key, name := os.Getenv("VLLM_API_KEY"), flag("--served-model-name")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"object":"list","data":[{"id":%q}]}`, name)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer "+key || key == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if file, _, err := r.FormFile("file"); err == nil {
			text, _ := io.ReadAll(file)
			fmt.Fprintf(w, `{"form_model":%q,"file":%q}`, r.FormValue("model"), text)
			return
		}
		var asked struct {
			Model    string
			Messages []any
			Die      bool
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if asked.Die {
			fmt.Println("told to die, key " + key)
			os.Exit(3)
		}
		fmt.Fprintf(w, `{"route":%q,"model":%q,"messages":%d}`, r.URL.Path, asked.Model, len(asked.Messages))
	})
	l, err := net.Listen("tcp", net.JoinHostPort(flag("--host"), flag("--port")))
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, mux)) //nolint:gosec // of a test
}
