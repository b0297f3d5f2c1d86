package onnx

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/jsontensor"
	"clearmlserving/inference/openaiapi"
	"clearmlserving/wordpiece"
)

// embedder makes vectors of texts with a model of tokens. It is made of the files that Hugging Face's libraries put
// beside such a model.
type embedder struct {
	tokenizer *wordpiece.Tokenizer
	output    int  // of the model
	pooled    bool // the output has one vector for each text
	first     bool // the vector of a text is that of its first token, not the mean of all
}

// The inputs of models of tokens.
const (
	inputIDs  = "input_ids"
	inputMask = "attention_mask"
	inputType = "token_type_ids"
)

// mostTokens bounds a text if no file tells more.
const mostTokens = 512

// errNoEmbedder: the model is none that embeds texts, or its tokenizer is not there.
var errNoEmbedder = errors.New("no embedder")

// embedderOf reads the files beside a model. Its error says why the model cannot embed.
func embedderOf(folder string, s engine.Signature) (*embedder, error) {
	e := &embedder{output: -1}
	for _, in := range s.Inputs {
		if in.Datatype != engine.Int64 || len(in.Shape) != 2 || !slices.Contains([]string{inputIDs, inputMask, inputType}, in.Name) {
			return nil, errNoEmbedder
		}
	}
	for i, out := range s.Outputs { // a vector of the whole text is better than those of tokens
		if out.Datatype == engine.FP32 && (len(out.Shape) == 2 || len(out.Shape) == 3 && e.output < 0) {
			e.output, e.pooled = i, len(out.Shape) == 2
			if e.pooled {
				break
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "tokenizer.json"))
	if e.output < 0 || errors.Is(err, fs.ErrNotExist) {
		return nil, errNoEmbedder
	}
	if err != nil {
		return nil, err
	}
	if e.tokenizer, err = wordpiece.Parse(text); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	var sentence struct {
		Most int `json:"max_seq_length"`
	}
	var pooling struct {
		First bool `json:"pooling_mode_cls_token"`
		Mean  bool `json:"pooling_mode_mean_tokens"`
		Size  int  `json:"word_embedding_dimension"`
	}
	if err := readJSON(filepath.Join(folder, "sentence_bert_config.json"), &sentence); err != nil {
		return nil, err
	}
	if err := readJSON(filepath.Join(folder, "1_Pooling", "config.json"), &pooling); err != nil {
		return nil, err
	}
	if pooling.Size > 0 && !pooling.First && !pooling.Mean {
		return nil, errors.New("1_Pooling/config.json: neither the mean of the tokens nor the first one is the vector of a text, which are known here")
	}
	e.first = pooling.First && !pooling.Mean
	if sentence.Most > 0 {
		e.tokenizer.Limit(sentence.Most)
	} else if !e.tokenizer.Limited() {
		e.tokenizer.Limit(mostTokens)
	}
	return e, nil
}

// readJSON reads a file that need not be there.
func readJSON(file string, into any) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return nil
}

// Speaks implements engine.Speaker.
func (m *model) Speaks() bool { return m.embedder != nil }

// embed answers an embeddings request. Each text is computed alone: quantized models answer a text differently beside
// others.
func (m *model) embed(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	asked, problem := openaiapi.ParseEmbeddings(req.Body)
	if problem != nil {
		return problemOf(problem), nil
	}
	ids := asked.Tokens
	for _, text := range asked.Texts {
		ids = append(ids, m.embedder.tokenizer.Encode(text))
	}
	vectors := make([][]float32, len(ids))
	tokens := int64(0)
	work, within := errgroup.WithContext(ctx)
	work.SetLimit(m.e.cores)
	for i := range ids {
		tokens += int64(len(ids[i]))
		work.Go(func() (err error) {
			vectors[i], err = m.vector(within, ids[i])
			return err
		})
	}
	if err := work.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		err := m.failure(err)
		if failed, ok := errors.AsType[*engine.Error](err); ok && failed.Kind == engine.KindBadRequest {
			return problemOf(openaiapi.BadRequest("input", "%s", failed)), nil
		}
		return nil, err
	}
	var named struct {
		Model string `json:"model"`
	}
	_ = json.Unmarshal(req.Body, &named) // it has been read before
	body, problem := openaiapi.AnswerEmbeddings(named.Model, asked, vectors, tokens)
	if problem != nil {
		return problemOf(problem), nil
	}
	m.answered.Add(1)
	return &engine.Response{Status: http.StatusOK, ContentType: jsontensor.ContentType, Body: body}, nil
}

func problemOf(p *openaiapi.Problem) *engine.Response {
	return &engine.Response{Status: p.Status, ContentType: jsontensor.ContentType, Body: p.Body(), Unread: true}
}

// vector computes the vector of a text, whose length is 1.
func (m *model) vector(ctx context.Context, ids []int64) ([]float32, error) {
	in := make([]engine.Tensor, len(m.signature.Inputs))
	for i, spec := range m.signature.Inputs {
		data := make([]byte, 0, 8*len(ids))
		for _, id := range ids {
			switch spec.Name {
			case inputMask:
				id = 1
			case inputType:
				id = 0
			}
			data = binary.LittleEndian.AppendUint64(data, uint64(id)) //nolint:gosec // its bits
		}
		in[i] = engine.Tensor{Name: spec.Name, Datatype: engine.Int64, Shape: []int64{1, int64(len(ids))}, Data: data}
	}
	out, err := m.ask(ctx, &engine.Request{}, in)
	if err != nil {
		return nil, err
	}
	t := out[m.embedder.output]
	rows := 1
	if !m.embedder.pooled && !m.embedder.first {
		rows = len(ids)
	}
	width := int(t.Shape[len(t.Shape)-1])
	if len(t.Data) < 4*rows*width || width == 0 {
		return nil, &engine.Error{Endpoint: m.url, Text: fmt.Sprintf("endpoint '%s': output '%s' of the model has the shape %v, which is no vector for each token", m.url, t.Name, t.Shape)}
	}
	sums := make([]float64, width)
	for k := range rows * width {
		sums[k%width] += float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*k:])))
	}
	length := 0.0
	for _, x := range sums {
		length += x * x
	}
	length = math.Sqrt(length)
	vector := make([]float32, width)
	for k, x := range sums {
		if length > 0 {
			vector[k] = float32(x / length)
		}
	}
	return vector, nil
}
