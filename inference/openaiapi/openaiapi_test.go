package openaiapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAnObjectKeepsTheOrderAndTheTextOfItsMembers(t *testing.T) {
	const text = `{"b": 1.50, "a" : [ 1 ], "c":"\u00e9<", "d":null, "b":2}`
	o, err := ParseObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o.Delete("a")
	o.SetText("e", "<é>")
	if o.Default("d", "5") || !o.Default("f", "6") || o.Has("d") || !o.Has("c") || o.Text("c") != "é<" || o.Text("b") != "" {
		t.Errorf("%s", o.Append(nil))
	}
	if got := string(o.Append(nil)); got != `{"b":2,"c":"\u00e9<","d":null,"e":"<é>","f":6}` {
		t.Error(got)
	}
	for _, wrong := range []string{"", "[]", "5", `{"a":1} x`, `{"a":1}{}`, `{"a"`, `{"a":}`} {
		if _, err := ParseObject([]byte(wrong)); err == nil {
			t.Errorf("%q is read", wrong)
		}
	}
}

// A client chooses how many members an object has: reading it must not take the square of their number.
func TestAnObjectOfManyMembersIsReadInOnePass(t *testing.T) {
	text := []byte{'{'}
	for i := range 200_000 {
		text = fmt.Appendf(text, `"%d":%d,`, i, i)
	}
	text = append(text, `"7":"seven","199999":"last"}`...)
	begun := time.Now()
	o, err := ParseObject(text)
	if took := time.Since(begun); err != nil || took > 10*time.Second {
		t.Fatalf("it took %s, %v", took, err)
	}
	if len(o.members) != 200_000 || o.Text("7") != "seven" || o.Text("199999") != "last" || string(o.Get("40")) != "40" {
		t.Errorf("%d members, 7 is %s, 199999 is %s, 40 is %s", len(o.members), o.Get("7"), o.Get("199999"), o.Get("40"))
	}
}

func TestRoutesOfOtherWays(t *testing.T) {
	for path, want := range map[string]string{"chat/completions": Chat, "/v1/completions/": Completions, "embeddings": Embeddings, "rerank": "rerank", "my/endpoint": "", "": ""} {
		if got := RouteOf(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
	for body, want := range map[string]string{`{"messages":[]}`: Chat, `{"prompt":"a"}`: Completions, `{"input":"a"}`: Embeddings, `{"x":1}`: "", `{"messages":null,"input":"a"}`: Embeddings} {
		o, err := ParseObject([]byte(body))
		if got := RouteOfBody(o); err != nil || got != want {
			t.Errorf("%s is %q, want %q", body, got, want)
		}
	}
}

func FuzzParseObject(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[{"c":"d"}],"a":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := ParseObject(text)
		if err != nil {
			return
		}
		if !json.Valid(o.Append(nil)) {
			t.Errorf("%q becomes %q", text, o.Append(nil))
		}
	})
}

func FuzzModelOf(f *testing.F) {
	f.Add("application/json", []byte(`{"model":"a/b"}`))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--b--\r\n"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		model, problem := ModelOf(contentType, body)
		if problem != nil && !json.Valid(problem.Body()) {
			t.Errorf("%s", problem.Body())
		}
		if len(model) > max(mostModel, len(body)) {
			t.Errorf("a model of %d bytes", len(model))
		}
	})
}

func FuzzEmbeddings(f *testing.F) {
	f.Add([]byte(`{"model":"a","input":["a","b"],"encoding_format":"base64","dimensions":2}`), []byte(`[[1,2,3],[4,5,6]]`))
	f.Add([]byte(`{"input":[[1],[2]]}`), []byte(`{"embeddings":[[1e39],[2]],"usage":{"prompt_tokens":1}}`))
	f.Fuzz(func(t *testing.T, request, answer []byte) {
		body, problem := FromModel("m", request, answer)
		if problem == nil && !bytes.Equal(body, answer) && (!json.Valid(body) || !strings.HasPrefix(string(body), `{"object":"list"`)) {
			t.Errorf("%q, %q: %q", request, answer, body)
		}
	})
}

// NaN has no JSON: an embedding of null would be an answer that looks good.
func TestVectorsThatAreNotFiniteAreNoAnswer(t *testing.T) {
	for _, x := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, base64 := range []bool{false, true} {
			body, problem := AnswerEmbeddings("m", EmbeddingsRequest{Texts: []string{"a"}, Base64: base64}, [][]float32{{0, float32(x)}}, 1)
			if problem == nil || problem.Status != http.StatusInternalServerError {
				t.Errorf("%g, base64 %t: %s", x, base64, body)
			}
		}
	}
}
