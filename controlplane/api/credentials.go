package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"time"

	"clearmlserving/controlplane/store"
)

// Credentials are an access key and its secret. The secret is known only to those who
// hold it: the store keeps a hash.
type Credentials struct {
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

// LogValue keeps the secret out of logs.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.AccessKey + ":[redacted]") }

// EnsureDefaults makes the first user with credentials when the store has none. have
// are the credentials kept beside the store, if any: they are returned as they are for
// as long as they are valid. Otherwise new ones are made for the first user, and
// created says that the caller must keep them, since they can't be read again.
func (a *Auth) EnsureDefaults(ctx context.Context, have Credentials) (kept Credentials, created bool, err error) {
	if have.AccessKey != "" {
		_, err := a.byCredentials(ctx, have)
		if err == nil {
			return have, false, nil
		}
		if told := (*Error)(nil); !errors.As(err, &told) {
			return Credentials{}, false, err
		}
	}
	fresh := newCredentials()
	err = a.store.Tx(ctx, func(tx store.Tx) error {
		user, err := a.firstUser(ctx, tx)
		if err != nil {
			return err
		}
		return tx.Insert(ctx, store.Credential, a.credentialDoc(fresh, user, "default"))
	})
	if err != nil {
		return Credentials{}, false, fmt.Errorf("make the first credentials: %w", err)
	}
	return fresh, true, nil
}

// firstUser returns the oldest user; in an empty store it makes one, with a company.
func (a *Auth) firstUser(ctx context.Context, tx store.Tx) (store.Doc, error) {
	users, err := tx.Query(ctx, store.User, store.Query{Limit: 1})
	if err != nil || len(users) > 0 {
		if err != nil {
			return nil, err
		}
		return users[0], nil
	}
	now := store.FormatTime(a.now())
	company := store.Doc{"id": newID(), "name": "ClearML", "created": now}
	user := store.Doc{
		"id": newID(), "name": "default", "company": company.ID(), "role": string(RoleAdmin),
		"created": now, "preferences": map[string]any{},
	}
	// Task.enqueue of a newcomer's script names this queue without having made it.
	queue := store.Doc{
		"id": newID(), "name": "default", "company": company.ID(), "user": user.ID(), "created": now,
		"tags": []any{}, "system_tags": []any{defaultTag}, "entries": []any{},
	}
	return user, errors.Join(tx.Insert(ctx, store.Company, company), tx.Insert(ctx, store.User, user), tx.Insert(ctx, store.Queue, queue))
}

func (a *Auth) credentialDoc(c Credentials, user store.Doc, label string) store.Doc {
	return store.Doc{
		"id": c.AccessKey, "secret_sha256": hashSecret(c.SecretKey), "label": label,
		"user": user.ID(), "company": user.Text("company"), "created": store.FormatTime(a.now()),
	}
}

// byCredentials returns whose credentials these are.
func (a *Auth) byCredentials(ctx context.Context, c Credentials) (Identity, error) {
	refused := unauthorized(subInvalidCredentials, "invalid credentials")
	doc, err := a.store.Get(ctx, store.Credential, c.AccessKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Identity{}, err
	}
	// An unknown key takes as long as a wrong secret.
	same := subtle.ConstantTimeCompare([]byte(hashSecret(c.SecretKey)), []byte(doc.Text("secret_sha256"))) == 1
	if doc == nil || !same {
		return Identity{}, refused
	}
	user, err := a.store.Get(ctx, store.User, doc.Text("user"))
	if errors.Is(err, store.ErrNotFound) {
		return Identity{}, refused
	}
	if err != nil {
		return Identity{}, err
	}
	company, err := a.store.Get(ctx, store.Company, user.Text("company"))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Identity{}, err
	}
	return limited(Identity{
		User: user.ID(), UserName: user.Text("name"),
		Company: user.Text("company"), CompanyName: company.Text("name"),
		Role: cmp.Or(Role(user.Text("role")), RoleUser), Via: "Basic", AccessKey: c.AccessKey,
	}, doc), nil
}

// touch notes when and from where credentials were used to log in, at most once a minute.
func (a *Auth) touch(ctx context.Context, access, remote string) {
	now := a.now()
	doc, err := a.store.Get(ctx, store.Credential, access)
	if err == nil {
		last, timeErr := store.ParseTime(doc.Text("last_used"))
		if timeErr == nil && now.Sub(last) < time.Minute {
			return
		}
		err = store.Update(ctx, a.store, store.Credential, access, func(doc store.Doc) error {
			doc["last_used"] = store.FormatTime(now)
			if host, _, err := net.SplitHostPort(remote); err == nil {
				doc["last_used_from"] = host
			}
			return nil
		})
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		// Who may log in does so even when the disk is full.
		a.log.Warn("use of credentials not noted", "err", err)
	}
}

// newCredentials makes a pair in ClearML's form. The secret has so much randomness
// (380 bits) that a plain hash of it is as good as a slow one.
func newCredentials() Credentials {
	const upper, lower, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
	return Credentials{
		AccessKey: randomText(30, upper+digits),
		SecretKey: randomText(64, upper+lower+digits),
	}
}

func randomText(n int, alphabet string) string {
	text := make([]byte, n)
	size := big.NewInt(int64(len(alphabet)))
	for i := range text {
		at, _ := rand.Int(rand.Reader, size) // this reader never fails, says its documentation
		text[i] = alphabet[at.Int64()]
	}
	return string(text)
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
