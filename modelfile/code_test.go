package modelfile_test

import (
	"slices"
	"testing"

	"clearmlserving/modelfile"
)

func TestBodyKeysAreThoseOfTheRequest(t *testing.T) {
	for name, c := range map[string]struct {
		code string
		want []string
	}{
		"body of preprocess":   {"def preprocess(self, body, state):\n    return [[body[\"x0\"], body.get('x1')]]\n", []string{"x0", "x1"}},
		"another name":         {"def preprocess(self, request: dict, state):\n    return request['a'], request[\"a\"], body['b']\n", []string{"a"}},
		"process":              {"def process(self, data, state, collect=None):\n    return {\"y\": data[\"x\"] * 2}\n", []string{"x"}},
		"not what it computed": {"def process(self, data, state):\n    return data['inner']\ndef preprocess(\n    self,\n    body: dict,\n):\n    return {'inner': body['x']}\n", []string{"x"}},
		"none":                 {"def process(self, data):\n    return data\n", nil},
		"no class":             {"x = body['old']\n", []string{"old"}},
	} {
		if got := modelfile.BodyKeysIn(c.code); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
