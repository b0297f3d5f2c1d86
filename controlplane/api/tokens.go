package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// What tokens say about this server. The SDK reads all three as dotted integers, and
// chooses its calls by the first.
const (
	announcedAPI    = "2.31"
	announcedServer = "2.0.0"
	announcedBuild  = "0"
)

const (
	tokenLife    = 30 * 24 * time.Hour
	maxTokenLife = 365 * 24 * time.Hour
)

// signingKey is the setting with the key of all tokens. It survives restarts: the SDK
// repeats a refused call with its old token, so a new key would fail one call of every
// running client.
const signingKey = "auth.signing_key"

// tokenClaims is the content of a token. The SDK decodes it without the key.
type tokenClaims struct {
	jwt.RegisteredClaims
	AuthType      string        `json:"auth_type"`
	Env           string        `json:"env"`
	SessionID     string        `json:"session_id"`
	AccessKey     string        `json:"access_key,omitempty"`
	Identity      tokenIdentity `json:"identity"`
	APIVersion    string        `json:"api_version"`
	ServerVersion string        `json:"server_version"`
	ServerBuild   string        `json:"server_build"`
	// FeatureSet is always "basic": with any other the SDK requests vaults.
	FeatureSet string `json:"feature_set"`
}

// tokenIdentity is the holder of a token when it was made, for clients that read it.
// This server reads none of it back.
type tokenIdentity struct {
	User        string `json:"user"`
	Company     string `json:"company"`
	Role        string `json:"role"`
	UserName    string `json:"user_name,omitempty"`
	CompanyName string `json:"company_name,omitempty"`
	// Service is ours: what a service account is limited to.
	Service string `json:"service,omitempty"`
}

// tokens signs and reads tokens. It knows no session: whether one was ended is for
// Auth to say.
type tokens struct {
	key []byte
	now func() time.Time
}

// sign makes a token of a new session for an identity; the life is at most a year.
func (t tokens) sign(who tokenIdentity, accessKey string, life time.Duration) (string, error) {
	now := t.now()
	claims := tokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(min(life, maxTokenLife))),
		},
		AuthType:      "Bearer",
		Env:           "<unknown>",
		SessionID:     documents.NewID(),
		AccessKey:     accessKey,
		Identity:      who,
		APIVersion:    announcedAPI,
		ServerVersion: announcedServer,
		ServerBuild:   announcedBuild,
		FeatureSet:    "basic",
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(t.key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text, nil
}

// read returns the claims of a token that this server has signed and that has not expired.
// Its error has the reason, never the token.
func (t tokens) read(text string) (tokenClaims, error) {
	var claims tokenClaims
	_, err := jwt.ParseWithClaims(text, &claims,
		func(*jwt.Token) (any, error) { return t.key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(t.now))
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return tokenClaims{}, errors.New("token has expired")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return tokenClaims{}, errors.New("token was not signed by this server")
	case err != nil:
		return tokenClaims{}, errors.New("token is malformed")
	case claims.Identity.User == "" || claims.Identity.Company == "":
		return tokenClaims{}, errors.New("token names no user")
	case claims.AccessKey == "":
		return tokenClaims{}, errors.New("token names no credentials")
	}
	return claims, nil
}

// loadSigningKey returns the server's key; the first call on a database makes it.
func loadSigningKey(ctx context.Context, s store.Store) ([]byte, error) {
	text, err := settingOr(ctx, s, signingKey, func() string {
		fresh := make([]byte, 32)
		_, _ = rand.Read(fresh) // never fails, says its documentation
		return hex.EncodeToString(fresh)
	})
	if err != nil {
		return nil, fmt.Errorf("load the signing key of tokens: %w", err)
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) < 32 {
		return nil, fmt.Errorf("load the signing key of tokens: the stored key is damaged")
	}
	return key, nil
}
