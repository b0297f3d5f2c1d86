package azure

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"clearmlserving/storage"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// login is the part of Azure that a client with a secret needs.
func login(t *testing.T, status int, token string) *Adapter {
	t.Helper()
	t.Setenv("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000001")
	t.Setenv("AZURE_CLIENT_ID", "client")
	t.Setenv("AZURE_CLIENT_SECRET", "secret")
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	return New(Options{
		Accounts: []Account{{Name: "one", Machine: true, From: "the test"}},
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			answer := func(status int, body string, header http.Header) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r}, nil
			}
			asJSON := http.Header{"Content-Type": {"application/json"}}
			tenant := "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000001"
			switch {
			case strings.HasPrefix(r.URL.Host, "one.blob"):
				if r.Header.Get("Authorization") != "Bearer the-token" {
					t.Errorf("authorization %q", r.Header.Get("Authorization"))
				}
				return answer(http.StatusOK, "", http.Header{"Etag": {`"1"`}})
			case strings.Contains(r.URL.Path, "/discovery/instance"):
				return answer(http.StatusOK, `{"tenant_discovery_endpoint":"`+tenant+`/v2.0/.well-known/openid-configuration","metadata":[]}`, asJSON)
			case strings.Contains(r.URL.Path, "openid-configuration"):
				return answer(http.StatusOK, `{"authorization_endpoint":"`+tenant+`/oauth2/v2.0/authorize","token_endpoint":"`+tenant+`/oauth2/v2.0/token","issuer":"`+tenant+`/v2.0"}`, asJSON)
			}
			return answer(status, token, asJSON)
		}),
	})
}

func TestTheIdentityOfTheMachineOpensAnAccountWithoutAKey(t *testing.T) {
	a := login(t, http.StatusOK, `{"access_token":"the-token","expires_in":3600,"token_type":"Bearer"}`)
	if o, err := a.Stat(t.Context(), "azure://one.blob.core.windows.net/models/k"); err != nil || o.ETag != `"1"` {
		t.Errorf("stat: %+v, %v", o, err)
	}
}

func TestARefusedIdentityIsFinalAndAnUnreachableLoginIsNot(t *testing.T) {
	for status, transient := range map[int]bool{http.StatusUnauthorized: false, http.StatusServiceUnavailable: true} {
		a := login(t, status, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
		_, err := a.Stat(t.Context(), "azure://one.blob.core.windows.net/models/k")
		if !errors.Is(err, storage.ErrDenied) || storage.IsTransient(err) != transient || !strings.Contains(err.Error(), "AADSTS7000215") {
			t.Errorf("status %d: %v (transient: %v)", status, err, storage.IsTransient(err))
		}
	}
}
