package inference

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"clearmlserving/serving"
)

// gate decides which clients' questions are answered, by the keys in the
// service's configuration. It is called once for each question, with its head, before
// routing and before the content is read; calls between endpoints do not pass
// it. It takes no lock and does not allocate for an admitted question.
type gate struct {
	log *slog.Logger
	// exposed: other machines can reach a front without a client certificate.
	exposed bool
	now     func() time.Time

	rules   atomic.Pointer[gateRules] // nil until the first configuration is read
	refused atomic.Uint64
}

// gateRules are the keys of one configuration. They are never changed.
type gateRules struct {
	required bool
	control  bool // clients may load and unload models
	// Keys are looked up by their digest. The time of the lookup depends on the digest
	// of the sent key, which reveals nothing about the stored digests.
	keys map[serving.KeyDigest]*gateKey
}

type gateKey struct {
	id string
	serving.AccessKey
}

// follow applies a configuration: it holds from the next request on.
func (g *gate) follow(access serving.Access) {
	next := &gateRules{required: access.Required, control: access.ModelControl, keys: make(map[serving.KeyDigest]*gateKey, len(access.Keys))}
	for id, k := range access.Keys {
		next.keys[k.Digest] = &gateKey{id, k}
	}
	before := g.rules.Swap(next)
	if before != nil && before.required == next.required {
		return
	}
	switch {
	case next.required:
		g.log.Info("requests need a key", "keys", len(next.keys))
	case g.exposed:
		g.log.Warn("requests from other machines need no key", "hint", "clearml-serving auth create && clearml-serving config --auth on")
	case before != nil:
		g.log.Warn("requests no longer need a key")
	}
}

// admit checks the key of a question to an endpoint; nil: it is valid.
func (g *gate) admit(h Head) *Failure {
	return g.check(h, func(k *serving.AccessKey) bool { return k.Opens(h.Endpoint) })
}

// admitToService checks the key of a question about the whole service: a key for
// some endpoints is not enough.
func (g *gate) admitToService(h Head) *Failure {
	return g.check(h, (*serving.AccessKey).Everywhere)
}

// admitToControl checks whether a client may load and unload the models of an endpoint. Without keys, it may if only this
// machine, or a client with a certificate, can be that client.
func (g *gate) admitToControl(h Head) *Failure {
	rules := g.rules.Load()
	switch {
	case rules == nil || !rules.control:
		if refused := g.admit(h); refused != nil {
			return refused
		}
		return controlRefused(h, "Clients may do it after: clearml-serving config --model-control on; operators with: clearml-serving model load, or unload")
	case !rules.required && g.exposed:
		return controlRefused(h, "Other machines can reach this instance, and requests need no key: clearml-serving config --auth on, and auth create --model-control")
	}
	if refused := g.admit(h); refused != nil || !rules.required {
		return refused
	}
	if key, err := rules.find(h.Key, g.now); err != nil || !key.ModelControl {
		g.refused.Add(1)
		return controlRefused(h, "The key may not do it: clearml-serving auth create --model-control makes one that may")
	}
	return nil
}

func controlRefused(h Head, why string) *Failure {
	return &Failure{Kind: KindForbidden, Text: fmt.Sprintf("model '%s' cannot be changed here: explicit model load / unload is not allowed. %s", h.Endpoint, why)}
}

// controls reports whether models may be loaded and unloaded at all.
func (g *gate) controls() bool {
	rules := g.rules.Load()
	return rules != nil && rules.control && (rules.required || !g.exposed)
}

// clientOf names the client of a key for the record of what it has done.
func (g *gate) clientOf(secret string) string {
	if rules := g.rules.Load(); rules != nil {
		if key, err := rules.find(secret, g.now); err == nil {
			return "key " + key.id
		}
	}
	return "a client"
}

func (g *gate) check(h Head, opens func(*serving.AccessKey) bool) *Failure {
	rules := g.rules.Load()
	if rules == nil || !rules.required {
		return nil
	}
	key, err := rules.find(h.Key, g.now)
	if err == nil && !opens(&key.AccessKey) {
		err = serving.ErrOtherEndpoint
	}
	if err == nil {
		return nil
	}
	g.refused.Add(1)
	if key == nil {
		key = &gateKey{}
	}
	g.log.Debug("request refused", "request_id", h.ID, "key", key.id, "err", err)
	return refusal(err, key)
}

// opener returns a function that reports which endpoints a key opens, without counting refusals.
func (g *gate) opener(secret string) func(serving.EndpointURL) bool {
	rules := g.rules.Load()
	if rules == nil || !rules.required {
		return func(serving.EndpointURL) bool { return true }
	}
	key, err := rules.find(secret, g.now)
	if err != nil {
		return func(serving.EndpointURL) bool { return false }
	}
	return key.Opens
}

// KeysRequired reports whether clients need a key.
func (s *Service) KeysRequired() bool {
	rules := s.gate.rules.Load()
	return rules != nil && rules.required
}

// find looks up a key; nil if it is unknown.
func (rules *gateRules) find(secret string, now func() time.Time) (*gateKey, error) {
	if secret == "" {
		return nil, serving.ErrNoKey
	}
	var buf [serving.MaxAccessKey]byte // on the stack: the key is a string
	if len(secret) > len(buf) {
		return nil, serving.ErrUnknownKey
	}
	key, ok := rules.keys[sha256.Sum256(buf[:copy(buf[:], secret)])]
	switch {
	case !ok:
		return nil, serving.ErrUnknownKey
	case !key.Expires.IsZero() && key.Expired(now()):
		return key, serving.ErrExpiredKey
	}
	return key, nil
}

// BearerKey extracts the key from the text of an Authorization header, or of its
// equivalent in another protocol; "" if there is none.
func BearerKey(authorization string) string {
	const scheme = "Bearer "
	if len(authorization) < len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return ""
	}
	return strings.Trim(authorization[len(scheme):], " ")
}

// refusal is the failure for a wrong key. It reveals nothing of the configuration to a
// client without a key: the answer is the same for endpoints that do not exist.
func refusal(err error, key *gateKey) *Failure {
	kind, challenge := KindUnauthenticated, `Bearer realm="clearml-serving", error="invalid_token"`
	var text string
	switch {
	case errors.Is(err, serving.ErrNoKey):
		challenge = `Bearer realm="clearml-serving"`
		text = `Not authenticated: send a key of this service as Bearer token in the header Authorization; clearml-serving auth create makes one`
	case errors.Is(err, serving.ErrExpiredKey):
		text = fmt.Sprintf("The key %s has expired on %s; clearml-serving auth create makes another", key.id, key.Expires.UTC().Format(time.RFC3339))
	case errors.Is(err, serving.ErrOtherEndpoint):
		kind, challenge = KindForbidden, `Bearer realm="clearml-serving", error="insufficient_scope"`
		text = fmt.Sprintf("The key %s is for other endpoints", key.id)
	default:
		text = "The key is not known: it may have been revoked, or belong to another service"
	}
	return &Failure{Kind: kind, Text: text, Challenge: challenge}
}

func (g *gate) status() serving.AccessReport {
	s := serving.AccessReport{Refused: g.refused.Load()}
	if rules := g.rules.Load(); rules != nil {
		s.KeysRequired = rules.required
		now := g.now()
		for _, k := range rules.keys {
			if !k.Expired(now) {
				s.Keys++
			}
		}
	}
	return s
}
