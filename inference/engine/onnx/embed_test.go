package onnx

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/serving"
	"clearmlserving/wordpiece"
)

// embedding loads the model of tokens with a tokenizer, and files beside it.
func embedding(t *testing.T, files map[string]string) *model {
	t.Helper()
	dir := t.TempDir()
	for name, from := range map[string]string{"model.onnx": models + "tokens/model.onnx", "tokenizer.json": "../../../wordpiece/testdata/tokenizer.json"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return loaded(t, newEngine(t), engine.Spec{URL: "m", ModelPath: dir, Endpoint: serving.Endpoint{EngineType: serving.EngineONNX, ServingURL: "m"}})
}

// vectorOf computes what the model of tokens answers.
func vectorOf(ids []int64) (v [3]float64) {
	for _, id := range ids {
		for k := range v {
			v[k] += float64(float32(math.Sin(float64(3*id) + float64(k))))
		}
	}
	length := math.Sqrt(v[0]*v[0] + v[1]*v[1] + v[2]*v[2])
	for k := range v {
		v[k] /= length
	}
	return v
}

func tokensOf(t *testing.T, text string) []int64 {
	t.Helper()
	file, err := os.ReadFile("../../../wordpiece/testdata/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	tokenizer, err := wordpiece.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer.Encode(text)
}

func embed(t *testing.T, m *model, body string) (int, string) {
	t.Helper()
	resp, err := m.Infer(t.Context(), &engine.Request{Route: openaiapi.Embeddings, Body: []byte(body), ContentType: jsontensor.ContentType})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status, string(resp.Body)
}

func TestAModelOfTokensEmbedsTexts(t *testing.T) {
	m := embedding(t, nil)
	if !m.Speaks() {
		t.Fatal("it does not embed")
	}
	status, body := embed(t, m, `{"model":"m","input":["hello world","word","hello world"]}`)
	var got struct {
		Data []struct {
			Index     int
			Embedding [3]float64
		}
		Usage struct {
			Prompt int `json:"prompt_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || len(got.Data) != 3 {
		t.Fatalf("%d %s %v", status, body, err)
	}
	tokens := 0
	for i, text := range []string{"hello world", "word", "hello world"} {
		ids := tokensOf(t, text)
		tokens += len(ids)
		for k, want := range vectorOf(ids) {
			if math.Abs(got.Data[i].Embedding[k]-want) > 1e-6 {
				t.Errorf("%q: %v, want %v", text, got.Data[i].Embedding, vectorOf(ids))
				break
			}
		}
	}
	if got.Usage.Prompt != tokens {
		t.Errorf("%d tokens, want %d", got.Usage.Prompt, tokens)
	}

	status, body = embed(t, m, `{"model":"m","input":[5,6],"encoding_format":"base64"}`)
	_, rest, _ := strings.Cut(body, `"embedding":"`)
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(rest, `"`, 2)[0])
	if err != nil || status != http.StatusOK || len(raw) != 12 || math.Abs(float64(math.Float32frombits(binary.LittleEndian.Uint32(raw)))-vectorOf([]int64{5, 6})[0]) > 1e-6 {
		t.Errorf("%d %s %v", status, body, err)
	}
	for _, wrong := range []string{`{"model":"m","input":""}`, `{"model":"m","input":[]}`, `{"model":"m"}`, `{"model":"m","input":{"a":1}}`, `{"model":"m","input":"a","dimensions":4}`, `{"model":"m","input":[999999]}`} {
		if status, body := embed(t, m, wrong); status != http.StatusBadRequest || !strings.Contains(body, `{"error":{"message":`) {
			t.Errorf("%s: %d %s", wrong, status, body)
		}
	}
	// Other requests get the model's outputs.
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`{"input_ids":[[1]],"attention_mask":[[1]]}`), ContentType: jsontensor.ContentType})
	if err != nil || !strings.HasPrefix(string(resp.Body), "[[[") {
		t.Errorf("%s, %v", resp.Body, err)
	}
}

func TestFilesBesideAModelSayHowItEmbeds(t *testing.T) {
	m := embedding(t, map[string]string{"1_Pooling/config.json": `{"word_embedding_dimension":3,"pooling_mode_cls_token":true}`, "sentence_bert_config.json": `{"max_seq_length":4}`})
	ids := tokensOf(t, "hello world word hello")
	first := vectorOf(ids[:1])
	_, body := embed(t, m, `{"model":"m","input":"hello world word hello"}`)
	var got struct {
		Data  []struct{ Embedding [3]float64 }
		Usage struct {
			Prompt int `json:"prompt_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Usage.Prompt != 4 || math.Abs(got.Data[0].Embedding[0]-first[0]) > 1e-6 {
		t.Errorf("%s, want %v", body, first)
	}
	for name, text := range map[string]string{"tokenizer.json": `{"model":{"type":"BPE"}}`, "1_Pooling/config.json": `{"word_embedding_dimension":3,"pooling_mode_max_tokens":true}`} {
		m := embedding(t, map[string]string{name: text})
		if warnings := m.Status().Warnings; m.Speaks() || len(warnings) != 1 || !strings.Contains(warnings[0], filepath.Base(name)) {
			t.Errorf("%s: %v", name, warnings)
		}
	}
}
