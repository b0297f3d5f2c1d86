package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"clearmlserving/storage"
)

// explain converts an error of a server or of the connection to one that names bucket, key, and the
// setting to check.
func (t target) explain(ctx context.Context, op string, err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || (answer.Code == "" && answer.StatusCode == 0) {
		return storage.Unanswered(ctx, op, t.url, err)
	}
	e := &storage.Error{Op: op, URL: t.url, Transient: storage.HealingStatus(answer.StatusCode)}
	e.Err = t.meaning(answer)
	switch answer.Code {
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted":
		e.Transient = true
	}
	return e
}

// meaning is the error in words. The codes are from AWS's list of error responses, which other
// servers use too.
func (t target) meaning(answer minio.ErrorResponse) error {
	from := cmp.Or(t.access.From, "sdk.aws.s3 in clearml.conf")
	denied := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", storage.ErrDenied, fmt.Sprintf(format, args...))
	}
	switch answer.Code {
	case "NoSuchKey", "NoSuchVersion", "NotFound":
		return storage.ErrNotExist
	case "XMinioInvalidObjectName":
		return fmt.Errorf("the key is not allowed: %s", answer.Message)
	case "NoSuchBucket":
		return fmt.Errorf("%w: the bucket %q does not exist%s", storage.ErrNotExist, t.bucket, t.at())
	case "InvalidBucketName":
		return fmt.Errorf("%q is not a bucket name (%s); a server other than AWS needs its port in the address: s3://host:port/bucket/key", t.bucket, answer.Message)
	case "PreconditionFailed", "InvalidRange":
		return storage.ErrChanged
	case "AccessDenied", "AllAccessDisabled", "Forbidden":
		return denied("the credentials of %s have no right to this in the bucket %q", from, t.bucket)
	case "InvalidAccessKeyId", "InvalidClientTokenId", "XAdminUserNotFound", "XMinioAdminNoSuchUser":
		return denied("the server does not know the key: check key in %s", from)
	case "SignatureDoesNotMatch":
		return denied("the secret does not match the key: check secret in %s", from)
	case "ExpiredToken", "TokenRefreshRequired", "InvalidToken", "RequestExpired":
		return denied("the session token has expired or is not valid: renew token in %s, or AWS_SESSION_TOKEN", from)
	case "RequestTimeTooSkewed":
		return denied("the clock of this machine differs too much from the server's: correct it (timedatectl status)")
	case "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "InvalidRegion":
		return fmt.Errorf("the bucket %q is in another region than %q: %s; set region in %s", t.bucket, t.access.Region, answer.Message, from)
	case "EntityTooLarge":
		return errors.New("the server does not accept a file of this size")
	}
	switch answer.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed:
		return storage.ErrChanged
	case http.StatusForbidden, http.StatusUnauthorized:
		return denied("%s (%s); the credentials are those of %s", answer.Message, answer.Code, from)
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
		return fmt.Errorf("the bucket %q is in another region than %q; set region in %s", t.bucket, t.access.Region, from)
	}
	return fmt.Errorf("the server answers %d %s: %s", answer.StatusCode, answer.Code, answer.Message)
}

// at names the server if it is not obvious.
func (t target) at() string {
	if t.host == "" {
		return ""
	}
	return " on " + t.host
}
