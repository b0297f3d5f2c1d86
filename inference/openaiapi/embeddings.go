package openaiapi

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
)

// EmbeddingsRequest is what an embeddings request asks for.
type EmbeddingsRequest struct {
	// Texts are the inputs. Tokens are inputs that are lists of token ids; only one of both is set.
	Texts  []string
	Tokens [][]int64
	// Base64: vectors are answered as base64 of float32, little-endian.
	Base64 bool
	// Dimensions is the wanted length of the vectors, 0 for the model's.
	Dimensions int
}

// mostInputs bounds the inputs of one request, as OpenAI does.
const mostInputs = 2048

// ParseEmbeddings reads the body of an embeddings request.
func ParseEmbeddings(body []byte) (EmbeddingsRequest, *Problem) {
	var asked struct {
		Input      json.RawMessage `json:"input"`
		Encoding   *string         `json:"encoding_format"`
		Dimensions *int            `json:"dimensions"`
	}
	var r EmbeddingsRequest
	if err := json.Unmarshal(body, &asked); err != nil {
		return r, BadRequest("", "We could not parse the JSON body of your request: %s", err)
	}
	if problem := r.readInput(asked.Input); problem != nil {
		return r, problem
	}
	if asked.Encoding != nil {
		switch *asked.Encoding {
		case "float":
		case "base64":
			r.Base64 = true
		default:
			return r, BadRequest("encoding_format", "Invalid value for 'encoding_format': expected float or base64")
		}
	}
	if asked.Dimensions != nil {
		if r.Dimensions = *asked.Dimensions; r.Dimensions < 1 {
			return r, BadRequest("dimensions", "Invalid value for 'dimensions': expected 1 or more")
		}
	}
	return r, nil
}

// readInput reads a text, a list of texts, a list of token ids, or a list of such lists.
func (r *EmbeddingsRequest) readInput(input json.RawMessage) *Problem {
	var text string
	var texts []string
	var ids []int64
	var lists [][]int64
	switch {
	case len(input) == 0 || isNull(input):
		return BadRequest("input", "you must provide an input")
	case json.Unmarshal(input, &text) == nil:
		r.Texts = []string{text}
	case json.Unmarshal(input, &texts) == nil:
		r.Texts = texts
	case json.Unmarshal(input, &ids) == nil:
		r.Tokens = [][]int64{ids}
	case json.Unmarshal(input, &lists) == nil:
		r.Tokens = lists
	default:
		return BadRequest("input", "Invalid type for 'input': expected a string, a list of strings, a list of token ids, or a list of such lists")
	}
	n := len(r.Texts) + len(r.Tokens)
	if n == 0 || n > mostInputs {
		return BadRequest("input", "'input' has %d elements: expected 1 to %d", n, mostInputs)
	}
	for i, text := range r.Texts {
		if text == "" {
			return BadRequest("input", "element %d of 'input' is empty", i)
		}
	}
	for i, ids := range r.Tokens {
		if len(ids) == 0 {
			return BadRequest("input", "element %d of 'input' is empty", i)
		}
	}
	return nil
}

// Usage counts the tokens of an answer.
type Usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Total      int64 `json:"total_tokens"`
}

// AnswerEmbeddings is the answer with these vectors.
func AnswerEmbeddings(model string, r EmbeddingsRequest, vectors [][]float32, promptTokens int64) ([]byte, *Problem) {
	if want := len(r.Texts) + len(r.Tokens); len(vectors) != want {
		return nil, &Problem{Status: http.StatusInternalServerError, Type: ServerError, Message: fmt.Sprintf("the model answered %d vectors for %d inputs", len(vectors), want)}
	}
	b := []byte(`{"object":"list","data":[`)
	for i, vector := range vectors {
		if r.Dimensions > len(vector) {
			return nil, BadRequest("dimensions", "the model's vectors have %d dimensions, %d were asked for", len(vector), r.Dimensions)
		}
		if r.Dimensions > 0 && r.Dimensions < len(vector) {
			vector = normalised(vector[:r.Dimensions])
		}
		for _, x := range vector {
			if x-x != 0 { // NaN and infinite numbers have no JSON
				return nil, &Problem{Status: http.StatusInternalServerError, Type: ServerError, Message: fmt.Sprintf("the vector of element %d of 'input' has numbers that are not finite", i)}
			}
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"object":"embedding","index":%d,"embedding":`, i)
		if r.Base64 {
			raw := make([]byte, 0, 4*len(vector))
			for _, x := range vector {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			b = append(b, '"')
			b = base64.StdEncoding.AppendEncode(b, raw)
			b = append(b, '"', '}')
			continue
		}
		b = append(append(b, Encode(vector)...), '}')
	}
	b = append(b, `],"model":`...)
	b = append(b, Encode(model)...)
	return fmt.Appendf(b, `,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, promptTokens, promptTokens), nil
}

// normalised is a shortened vector with the length 1, as OpenAI shortens vectors.
func normalised(vector []float32) []float32 {
	sum := 0.0
	for _, x := range vector {
		sum += float64(x) * float64(x)
	}
	if sum == 0 {
		return vector
	}
	out := make([]float32, len(vector))
	for i, x := range vector {
		out[i] = float32(float64(x) / math.Sqrt(sum))
	}
	return out
}

// FromModel is the answer to an embeddings request of a model that does not know the API: its answer is a list of
// vectors, one vector, or an object with the member "embeddings" and perhaps "usage". An answer in the API's form stays.
func FromModel(model string, request, answer []byte) ([]byte, *Problem) {
	r, problem := ParseEmbeddings(request)
	if problem != nil {
		return nil, problem
	}
	vectors := json.RawMessage(answer)
	var tokens int64
	if o, err := ParseObject(answer); err == nil {
		if o.Has("data") && o.Has("object") {
			return answer, nil
		}
		var usage Usage
		if json.Unmarshal(o.Get("usage"), &usage) == nil {
			tokens = max(usage.Prompt, usage.Total)
		}
		vectors = o.Get("embeddings")
	}
	var many [][]float32
	if json.Unmarshal(vectors, &many) != nil {
		var one []float32
		if json.Unmarshal(vectors, &one) != nil || len(one) == 0 {
			return nil, BadRequest("model", "the model %q does not embed: its answer is no list of vectors", model)
		}
		many = [][]float32{one}
	}
	return AnswerEmbeddings(model, r, many, tokens)
}
