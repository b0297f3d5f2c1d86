package v2

import (
	"slices"
	"strconv"
	"strings"

	"clearmlserving/inference/engine/jsontensor"
)

// Append appends the body of the request, for another server. With binary, tensors are binary data, and those of the
// answer are asked for as such. header is the length of its JSON, or WholeBody. It fails if a tensor has no form in
// JSON. The data has been checked (CheckData).
func (r *Request) Append(dst []byte, binary bool) (body []byte, header int, err error) {
	start := len(dst)
	size := 256 + len(r.Parameters)
	for i := range r.Inputs {
		size += 128 + len(r.Inputs[i].Data)
	}
	dst = append(slices.Grow(dst, size), '{')
	if r.ID != "" {
		dst = append(AppendText(append(dst, `"id":`...), r.ID), ',')
	}
	if dst, err = r.appendParameters(dst, binary); err != nil {
		return nil, 0, err
	}
	dst = append(dst, `"inputs":[`...)
	for i := range r.Inputs {
		t := &r.Inputs[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendText(append(dst, `{"name":`...), t.Name)
		dst = append(append(append(dst, `,"datatype":"`...), t.Datatype...), `","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, d, 10)
		}
		dst = append(dst, ']')
		if binary || t.ContentType != "" {
			dst = append(dst, `,"parameters":{`...)
			if binary {
				dst = strconv.AppendInt(append(dst, `"binary_data_size":`...), int64(len(t.Data)), 10)
			}
			if t.ContentType != "" {
				if binary {
					dst = append(dst, ',')
				}
				dst = AppendText(append(dst, `"content_type":`...), t.ContentType)
			}
			dst = append(dst, '}')
		}
		if !binary {
			if dst, err = AppendFlat(append(dst, `,"data":`...), t); err != nil {
				return nil, 0, badRequest("input '%s': %v", t.Name, err)
			}
		}
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	for i, o := range r.Outputs {
		if i == 0 {
			dst = append(dst, `,"outputs":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = AppendText(append(dst, `{"name":`...), o.Name)
		if binary {
			dst = append(dst, `,"parameters":{"binary_data":true}`...)
		}
		dst = append(dst, '}')
	}
	if len(r.Outputs) > 0 {
		dst = append(dst, ']')
	}
	dst = append(dst, '}')
	if !binary {
		return dst, WholeBody, nil
	}
	header = len(dst) - start
	for i := range r.Inputs {
		dst = append(dst, r.Inputs[i].Data...)
	}
	return dst, header, nil
}

// appendParameters appends the parameters of the request, without those of the binary extension, which are its own.
func (r *Request) appendParameters(dst []byte, binary bool) ([]byte, error) {
	const begin = `"parameters":{`
	before := len(dst)
	dst = append(dst, begin...)
	if binary {
		dst = append(dst, `"binary_data_output":true,`...)
	}
	if r.ContentType != "" {
		dst = append(AppendText(append(dst, `"content_type":`...), r.ContentType), ',')
	}
	if r.Parameters != nil {
		s := scanner{b: r.Parameters}
		err := s.object("the parameters", func(key []byte) error {
			value, err := s.raw()
			switch string(key) {
			case "binary_data_output", "content_type":
			default:
				dst = append(append(append(jsontensor.AppendText(dst, key), ':'), value...), ',')
			}
			return err
		})
		if err != nil {
			return dst, err
		}
	}
	if len(dst) == before+len(begin) {
		return dst[:before], nil
	}
	dst[len(dst)-1] = '}'
	return append(dst, ','), nil
}

// ParseResponse reads the body of another server's answer, as ParseRequest reads that of a request. Binary data is not
// copied out of the body. Its errors are *engine.Error of KindBadRequest or KindTooLarge.
func ParseResponse(body []byte, header int, limit int64) (*Response, error) {
	var rest []byte
	if header != WholeBody {
		if header < 0 || header > len(body) {
			return nil, badRequest("the header length is %d, but the body has %d bytes", header, len(body))
		}
		body, rest = body[:header], body[header:]
	}
	p := parser{scanner: scanner{b: body}, rest: rest, limit: limit, left: limit, answer: true}
	var r Response
	var seen once
	err := p.object("the answer", func(key []byte) (err error) {
		switch string(key) {
		case "model_name":
			if !p.null() {
				r.Model, err = p.text("model_name")
			}
			return err
		case "model_version":
			if !p.null() {
				r.Version, err = p.text("model_version")
			}
			return err
		case "id":
			if !p.null() {
				r.ID, err = p.text("id")
			}
			return err
		case "parameters":
			if p.null() {
				return nil
			}
			params, err := p.parameters("the answer's parameters")
			r.ContentType = params.contentType
			return err
		case "outputs":
			if err := seen.see(1, key); err != nil {
				return err
			}
			return p.array("the answer's outputs", p.input)
		}
		return p.skip(0)
	})
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, err
	}
	if seen == 0 {
		return nil, badRequest("the answer has no outputs")
	}
	if len(p.rest) > 0 {
		return nil, badRequest("the answer has %d bytes of binary data that no output takes", len(p.rest))
	}
	r.Outputs = p.r.Inputs
	if i := Duplicate(len(r.Outputs), func(i int) string { return r.Outputs[i].Name }); i >= 0 {
		return nil, badRequest("the answer has two outputs with the name '%s'", r.Outputs[i].Name)
	}
	return &r, nil
}

// side is what the parser reads: an input or, of an answer, an output.
func (p *parser) side() string {
	if p.answer {
		return "output"
	}
	return "input"
}

// ErrorOf is the text in the body of a server's error: error, detail or message of its JSON, else the body.
func ErrorOf(body []byte) string {
	for _, name := range [...]string{"error", "detail", "message"} {
		value, ok := Member(body, name)
		if !ok {
			continue
		}
		s := scanner{b: value}
		if text, err := s.text(name); err == nil && text != "" {
			return text
		}
		if inner, ok := Member(value, "message"); ok { // of an object
			s = scanner{b: inner}
			if text, err := s.text(name); err == nil {
				return text
			}
		}
		return strings.ToValidUTF8(string(value), "\uFFFD")
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}
