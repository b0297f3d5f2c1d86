package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheStandInSendsAllTokensAndTheUsageIfAsked(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(answerSteadily))
	defer s.Close()
	for _, usage := range []bool{false, true} {
		answer, err := request(t.Context(), http.MethodPost, s.URL, "", fmt.Appendf(nil, `{"stream_options":{"include_usage":%v}}`, usage))
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := tokensOf(answer)
		if err != nil || len(tokens) != streamTokens || tokens[1] != " token 1" {
			t.Errorf("%q, %v", tokens, err)
		}
		if strings.Contains(string(answer), `"usage"`) != usage || !strings.HasSuffix(string(answer), "data: [DONE]\n\n") {
			t.Errorf("usage %v: %s", usage, answer)
		}
	}
	if _, err := tokensOf([]byte("data: {broken\n\n")); err == nil {
		t.Error("a broken event was accepted")
	}
}
