package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// Credentials are an access key and its secret. The store has only a hash of the secret.
type Credentials struct {
	AccessKey string `json:"access_key"`
	SecretKey string `json:"secret_key"`
}

// LogValue keeps the secret out of logs.
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.AccessKey + ":[redacted]") }

// EnsureDefaults makes sure that an installation has an administrator. It creates the first
// user with credentials in an empty store, and restores an administrator if none is left.
// have are the credentials stored beside the store, if any, and returned while they are
// valid. Otherwise new ones are created for an administrator, and created says that the
// caller must store them, because they cannot be read again.
func (a *Auth) EnsureDefaults(ctx context.Context, have Credentials) (kept Credentials, created bool, err error) {
	if err := a.moveEndedSessions(ctx); err != nil {
		return Credentials{}, false, err
	}
	var holder string // the user of have
	if have.AccessKey != "" {
		who, err := a.byCredentials(ctx, have)
		if told := (*documents.Error)(nil); err != nil && !errors.As(err, &told) {
			return Credentials{}, false, err
		}
		holder = who.User
	}
	if holder != "" {
		// No transaction if nothing is missing: a full disk must not prevent the start.
		if left, err := adminLeft(ctx, a.store); left || err != nil {
			return have, false, err
		}
	}
	fresh := newCredentials()
	var promoted store.Doc
	err = a.store.Tx(ctx, func(tx store.Tx) error {
		user, err := a.administrator(ctx, tx, holder)
		if err != nil {
			return err
		}
		if promoted = nil; user.Text("role") != string(RoleAdmin) {
			promoted = user
			user["role"] = string(RoleAdmin)
			if err := tx.Put(ctx, store.User, user); err != nil {
				return err
			}
		}
		kept, created = have, false
		if holder != "" {
			if left, err := adminLeft(ctx, tx); left || err != nil {
				return err
			}
		}
		kept, created = fresh, true
		return tx.Insert(ctx, store.Credential, a.credentialDoc(fresh, user, "default"))
	})
	if err != nil {
		return Credentials{}, false, fmt.Errorf("make the first credentials: %w", err)
	}
	if promoted != nil {
		a.log.Warn("no administrator was left: the role was given to a user", "user", promoted.ID(), "name", promoted.Text("name"))
	}
	return kept, created, nil
}

// EnsureGiven makes an installation accept credentials that its operator has chosen, as those of an administrator. A new
// secret of the same access key replaces the old one.
func (a *Auth) EnsureGiven(ctx context.Context, given Credentials) error {
	if err := a.moveEndedSessions(ctx); err != nil {
		return err
	}
	who, err := a.byCredentials(ctx, given)
	if told := (*documents.Error)(nil); err != nil && !errors.As(err, &told) {
		return err
	}
	if err == nil && who.Role == RoleAdmin {
		return nil // no transaction if nothing is missing: a full disk must not prevent the start
	}
	err = a.store.Tx(ctx, func(tx store.Tx) error {
		user, err := a.administrator(ctx, tx, "")
		if err != nil {
			return err
		}
		if user.Text("role") != string(RoleAdmin) {
			user["role"] = string(RoleAdmin)
			if err := tx.Put(ctx, store.User, user); err != nil {
				return err
			}
		}
		doc := a.credentialDoc(given, user, "given")
		if err := tx.Put(ctx, store.Credential, doc); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return tx.Insert(ctx, store.Credential, doc)
	})
	if errors.Is(err, store.ErrExists) { // another server on the same database was faster
		_, err = a.byCredentials(ctx, given)
	}
	if err != nil {
		return fmt.Errorf("store the given credentials: %w", err)
	}
	return nil
}

// administrator returns the oldest administrator, or else a user to promote: preferred, or
// the oldest. In an empty store it creates one, with a company.
func (a *Auth) administrator(ctx context.Context, tx store.Tx, preferred string) (store.Doc, error) {
	users, err := tx.Query(ctx, store.User, store.Query{})
	if err != nil {
		return nil, err
	}
	for _, want := range []store.Expr{documents.Is(string(RoleAdmin), "role"), documents.Is(preferred, "id"), store.And{}} {
		for _, user := range users {
			if want.Match(user) {
				return user, nil
			}
		}
	}
	now := store.FormatTime(a.now())
	company := store.Doc{"id": documents.NewID(), "name": "ClearML", "created": now}
	user := store.Doc{
		"id": documents.NewID(), "name": "default", "company": company.ID(), "role": string(RoleAdmin),
		"created": now, "preferences": map[string]any{},
	}
	// Scripts enqueue to this queue without creating it.
	queue := store.Doc{
		"id": documents.NewID(), "name": "default", "company": company.ID(), "user": user.ID(), "created": now,
		"tags": []any{}, "system_tags": []any{defaultTag}, "entries": []any{},
	}
	return user, errors.Join(tx.Insert(ctx, store.Company, company), tx.Insert(ctx, store.User, user), tx.Insert(ctx, store.Queue, queue))
}

// adminLeft says whether there is an administrator with an unlimited credential.
func adminLeft(ctx context.Context, from store.Reader) (bool, error) {
	admins, err := from.Query(ctx, store.User, store.Query{Where: documents.Is(string(RoleAdmin), "role")})
	if err != nil {
		return false, err
	}
	for _, admin := range admins {
		pairs, err := from.Query(ctx, store.Credential, store.Query{Where: documents.Is(admin.ID(), "user")})
		if err != nil {
			return false, err
		}
		for _, pair := range pairs {
			if limited(Identity{Role: RoleAdmin}, pair).Role == RoleAdmin {
				return true, nil
			}
		}
	}
	return false, nil
}

// mustLeaveAdmin refuses a change, at the end of its transaction, that leaves no
// administrator. Transactions run one after the other, so of two administrators that demote
// each other at the same time one is refused.
func mustLeaveAdmin(ctx context.Context, tx store.Tx) error {
	left, err := adminLeft(ctx, tx)
	if err == nil && !left {
		return badRequest("The last administrator stays: first give another user the role admin (auth.edit_user) and unlimited credentials (auth.create_credentials)")
	}
	return err
}

func (a *Auth) credentialDoc(c Credentials, user store.Doc, label string) store.Doc {
	return store.Doc{
		"id": c.AccessKey, "secret_sha256": hashSecret(c.SecretKey), "label": label,
		"user": user.ID(), "company": user.Text("company"), "created": store.FormatTime(a.now()),
	}
}

// byCredentials returns the holder of credentials.
func (a *Auth) byCredentials(ctx context.Context, c Credentials) (Identity, error) {
	refused := unauthorized(subInvalidCredentials, "invalid credentials")
	doc, err := store.IfThere(a.store.Get(ctx, store.Credential, c.AccessKey))
	if err != nil {
		return Identity{}, err
	}
	// The comparison also runs for an unknown key, so that both refusals take equally long.
	same := subtle.ConstantTimeCompare([]byte(hashSecret(c.SecretKey)), []byte(doc.Text("secret_sha256"))) == 1
	if doc == nil || !same {
		return Identity{}, refused
	}
	return a.holder(ctx, doc, "Basic", refused)
}

// touch stores when and from where credentials were used to log in, at most once a minute.
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
			doc["last_used_from"] = hostOf(remote)
			return nil
		})
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		// A login must succeed even if the disk is full.
		a.log.Warn("use of credentials not stored", "err", err)
	}
}

// hostOf is the host of a network address.
func hostOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

// newCredentials makes a pair in ClearML's form. The secret has so much randomness
// (320 bits) that a plain hash of it is as good as a slow one.
func newCredentials() Credentials {
	return Credentials{
		AccessKey: (rand.Text() + rand.Text())[:30],
		SecretKey: (rand.Text() + rand.Text() + rand.Text())[:64],
	}
}

func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
