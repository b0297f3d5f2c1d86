package azure

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"clearmlserving/storage"
)

// Identity is who this machine is in Azure, in the words of Azure's own variables:
// a client with its secret, or with the file of a token that Kubernetes renews. One
// without either is the managed identity of the machine.
//
// The managed identity is asked of the address that virtual machines and AKS have. Not
// covered are the places with another one: App Service and Functions (IDENTITY_ENDPOINT),
// Azure Arc, Service Fabric, Cloud Shell, and Azure ML. Nor are clients with a
// certificate, users, and the login of the az command. An account key or a connection
// string works there.
type Identity struct {
	Tenant, Client, Secret string
	TokenFile              string
	Authority              string // "": Azure's public one
}

// machineToken gets the tokens of an identity, and caches the newest.
type machineToken struct {
	identity Identity
	client   *http.Client

	mu    sync.Mutex // guards token; held during a request, so that others wait for it
	token azcore.AccessToken
}

func (a *Adapter) machine(identity Identity) *machineToken {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.machines[identity] == nil {
		a.machines[identity] = &machineToken{identity: identity, client: &http.Client{Transport: a.o.Transport, Timeout: 15 * time.Second}}
	}
	return a.machines[identity]
}

// GetToken implements azcore.TokenCredential.
func (m *machineToken) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Until(m.token.ExpiresOn) > 5*time.Minute {
		return m.token, nil
	}
	req, err := m.request(ctx)
	if err != nil {
		return azcore.AccessToken{}, &storage.Error{Op: "log in to", URL: "Azure", Err: fmt.Errorf("%w: %w", storage.ErrDenied, err)}
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return azcore.AccessToken{}, storage.Unanswered(ctx, "log in to", req.URL.Host, err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token       string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"`
		Description string      `json:"error_description"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer)
	if err != nil || answer.Token == "" {
		first, _, _ := strings.Cut(answer.Description, "\r\n")
		return azcore.AccessToken{}, &storage.Error{
			Op: "log in to", URL: req.URL.Host, Transient: storage.HealingStatus(resp.StatusCode),
			Err: fmt.Errorf("%w: Azure does not know this machine's identity (%s): %s", storage.ErrDenied, resp.Status, first),
		}
	}
	seconds, err := answer.ExpiresIn.Int64()
	if err != nil {
		seconds = 600 // an unknown format: requested again soon
	}
	m.token = azcore.AccessToken{Token: answer.Token, ExpiresOn: time.Now().Add(time.Duration(seconds) * time.Second)}
	return m.token, nil
}

// request requests a token of the identity.
func (m *machineToken) request(ctx context.Context) (*http.Request, error) {
	id := m.identity
	if id.Tenant == "" || id.Client == "" || (id.Secret == "" && id.TokenFile == "") {
		query := url.Values{"api-version": {"2018-02-01"}, "resource": {"https://storage.azure.com/"}}
		if id.Client != "" {
			query.Set("client_id", id.Client)
		}
		// The address of the metadata service for every machine in Azure.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://169.254.169.254/metadata/identity/oauth2/token?"+query.Encode(), nil)
		if err == nil {
			req.Header.Set("Metadata", "true")
		}
		return req, err
	}
	form := url.Values{"client_id": {id.Client}, "grant_type": {"client_credentials"}, "scope": {"https://storage.azure.com/.default"}}
	if id.Secret != "" {
		form.Set("client_secret", id.Secret)
	} else {
		token, err := os.ReadFile(id.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token of AZURE_FEDERATED_TOKEN_FILE: %w", err)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", strings.TrimSpace(string(token)))
	}
	authority := strings.TrimRight(id.Authority, "/")
	if authority == "" {
		authority = "https://login.microsoftonline.com"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, authority+"/"+url.PathEscape(id.Tenant)+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}
