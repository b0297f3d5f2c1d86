package prepost

import (
	"context"
	"fmt"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/python/pythontest"
)

func TestAComputationMayTakeBodies(t *testing.T) {
	e := pythontest.Start(t, nil)
	m := loaded(t, e, code(t, surrounds), Middle{ComputeBody: func(_ context.Context, body []byte, contentType string) (*engine.Response, error) {
		switch string(body) {
		case "refuse":
			return &engine.Response{Status: 418, ContentType: "text/plain", Body: []byte("no")}, nil
		case "fail":
			return nil, &engine.Error{Kind: engine.KindUnavailable, Text: "the server is away"}
		case "bytes":
			return &engine.Response{Status: 200, ContentType: "image/png", Body: []byte{0x89}}, nil
		case "liar":
			return &engine.Response{Status: 200, ContentType: "application/json", Body: []byte("{")}, nil
		}
		return &engine.Response{Status: 200, ContentType: "application/json; charset=utf-8", Body: fmt.Appendf(nil, `[%q, %s]`, contentType, body)}, nil
	}})
	for _, tc := range []struct{ do, want string }{
		{`{'a': [1, 2]}`, `200 ["application/json",{"a":[1,2]}]`},
		{`numpy.array([[1.5, 2.0]])`, `200 ["application/json",[[1.5,2.0]]]`},
		{`{'x': numpy.array([1]), 'y': numpy.array([True])}`, `200 ["application/json",{"x":[1],"y":[true]}]`},
		{`b'bytes'`, `200 "b'\\x89'"`},
		{`b'liar'`, `200 "b'{'"`},
		{`b'refuse'`, `418 no`},
		{`b'fail'`, `the server is away`},
	} {
		if got := ask(t, m, fmt.Sprintf(`{"do": %q, "then": "data if isinstance(data, list) else repr(data)"}`, tc.do)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.do, got, tc.want)
		}
	}
}
