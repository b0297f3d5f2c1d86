package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"clearmlserving/retry"
	"clearmlserving/storage"
)

// explain converts an error of Azure or of the connection to one that names container, blob, and
// the setting to check.
func (p place) explain(ctx context.Context, op string, err error) error {
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) {
		if known, ok := errors.AsType[*storage.Error](err); ok {
			return known
		}
		return storage.Unanswered(ctx, op, p.url, err)
	}
	e := &storage.Error{Op: op, URL: p.url, Transient: storage.HealingStatus(answer.StatusCode), Err: p.meaning(answer)}
	if answer.RawResponse != nil {
		e.After = retry.After(answer.RawResponse.Header.Get("Retry-After"), time.Now())
	}
	return e
}

// meaning is the error in words. The codes are from Azure's list of error codes.
func (p place) meaning(answer *azcore.ResponseError) error {
	denied := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", storage.ErrDenied, fmt.Sprintf(format, args...))
	}
	switch answer.ErrorCode {
	case "ContainerNotFound":
		return fmt.Errorf("%w: the container %q does not exist in the account %q", storage.ErrNotExist, p.container, p.account.Name)
	case "BlobNotFound", "ResourceNotFound":
		return storage.ErrNotExist
	case "ConditionNotMet", "TargetConditionNotMet", "InvalidRange":
		return storage.ErrChanged
	case "AuthenticationFailed", "InvalidAuthenticationInfo":
		return denied("the key of the account %q (%s) is not the right one, or the clock of this machine is wrong", p.account.Name, p.account.From)
	case "AuthorizationFailure", "AuthorizationPermissionMismatch", "InsufficientAccountPermissions":
		return denied("the credentials of %s have no right to this in the container %q, or the key is not the right one", p.account.From, p.container)
	case "AccountIsDisabled":
		return denied("the account %q is disabled", p.account.Name)
	case "InvalidResourceName", "InvalidUri":
		return fmt.Errorf("%q is not a container name, or the blob's name is not allowed (%s)", p.container, answer.ErrorCode)
	case "BlobArchived":
		return errors.New("the blob is archived: it must be rehydrated in Azure before it can be read")
	}
	switch answer.StatusCode {
	case http.StatusNotFound:
		return storage.ErrNotExist
	case http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed:
		return storage.ErrChanged
	case http.StatusForbidden, http.StatusUnauthorized:
		return denied("%s; the credentials are those of %s", answer.ErrorCode, p.account.From)
	}
	return fmt.Errorf("the server answers %d %s", answer.StatusCode, answer.ErrorCode)
}
