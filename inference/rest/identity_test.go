package rest_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"clearmlserving/serving"
)

func TestAnInstanceProvesItselfToWhomeverAsks(t *testing.T) {
	who, err := serving.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	base := start(t, newKeyRing().with(t, func(o *options) { o.Identity = who }), "echo")
	const challenge = "A7F3QZ5K2M4N6P7R"
	resp, body := get(t, base+serving.IdentityPath+"?challenge="+challenge)
	var proof serving.Proof
	if err := json.Unmarshal([]byte(body), &proof); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	if err := proof.Verify(who.Public(), challenge); err != nil {
		t.Error(err)
	}
	for _, query := range []string{"", "?challenge=short", "?challenge=a+text+with+spaces+in+it", "?%zz"} {
		if resp, body := get(t, base+serving.IdentityPath+query); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %d %s", query, resp.StatusCode, body)
		}
	}
	if resp, _ := post(t, base+serving.IdentityPath+"?challenge="+challenge, ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}
