package azure

import (
	"context"
	"errors"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"clearmlserving/storage"
)

// identity is the Azure identity of this machine, found by the rules of Azure's libraries, as in
// the SDK: the variables AZURE_*, the token that Kubernetes mounts, the managed identity, and the
// login of a tool of Azure.
type identity struct{ azcore.TokenCredential }

func newIdentity(o policy.ClientOptions) (azcore.TokenCredential, error) {
	found, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: o})
	if err != nil {
		return nil, fmt.Errorf("%w: this machine has no identity in Azure: %w", storage.ErrDenied, err)
	}
	return identity{found}, nil
}

// GetToken implements azcore.TokenCredential. An error is final only if Azure has refused the
// identity.
func (i identity) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := i.TokenCredential.GetToken(ctx, o)
	if err == nil {
		return token, nil
	}
	e := &storage.Error{Op: "log in to", URL: "Azure", Transient: true, Err: fmt.Errorf("%w: this machine's identity cannot be used: %w", storage.ErrDenied, err)}
	if refused, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && refused.RawResponse != nil {
		e.Transient = storage.HealingStatus(refused.RawResponse.StatusCode)
	}
	return token, e
}
