package serving

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
)

// IdentityPath is the path where an instance proves its identity: GET with ?challenge=<text>.
const IdentityPath = "/identity"

// PeerHeader is the header by which an instance proves that a request comes from it.
const PeerHeader = "X-Clearml-Serving-Peer"

// Identity is the key by which an instance proves that a record belongs to it: the record has the
// public key, only the process has the private key. The zero value proves nothing.
type Identity struct{ key ed25519.PrivateKey }

// Proof is the answer to a challenge.
type Proof struct {
	Signature string `json:"signature"`
}

// NewIdentity creates the identity of one process; it is never stored.
func NewIdentity() (Identity, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Identity{}, fmt.Errorf("make the instance's identity: %w", err)
	}
	return Identity{key}, nil
}

// Public is the public key for the record, "" for the zero value.
func (i Identity) Public() string {
	if i.key == nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(i.key.Public().(ed25519.PublicKey))
}

// Prove answers a challenge; false for a challenge that Verify would not send, and for the zero
// value.
func (i Identity) Prove(challenge string) (Proof, bool) {
	if i.key == nil || !challengeGood(challenge) {
		return Proof{}, false
	}
	return Proof{base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.key, identityMessage(challenge)))}, true
}

// Sign signs a message to another instance of the service, "" for the zero value.
func (i Identity) Sign(message string) string {
	if i.key == nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.key, instanceMessage(message)))
}

// Signed reports whether a message is signed by the instance with this public key.
func Signed(public, message, signature string) bool {
	key, err := base64.RawURLEncoding.DecodeString(public)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return false
	}
	signed, err := base64.RawURLEncoding.DecodeString(signature)
	return err == nil && ed25519.Verify(key, instanceMessage(message), signed)
}

// instanceMessage gives the signature a context, so that it has no meaning elsewhere.
func instanceMessage(message string) []byte {
	return []byte("clearml-serving: message of an instance\n" + message)
}

// errNotProven is the same for all reasons, to leak none.
var errNotProven = errors.New("the answer is not signed by the key of the instance's record")

// Verify reports whether a proof answers the challenge with the key of a record.
func (p Proof) Verify(public, challenge string) error {
	key, err := base64.RawURLEncoding.DecodeString(public)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return errors.New("the instance's record holds no key to prove it by; a newer version writes one")
	}
	signature, err := base64.RawURLEncoding.DecodeString(p.Signature)
	if err != nil || !challengeGood(challenge) || !ed25519.Verify(key, identityMessage(challenge), signature) {
		return errNotProven
	}
	return nil
}

// identityMessage gives the signature a context, so that it has no meaning elsewhere.
func identityMessage(challenge string) []byte {
	return []byte("clearml-serving: identity of an instance\n" + challenge)
}

// challengeGood requires enough letters and digits to be unpredictable, and few enough to be cheap
// to sign.
func challengeGood(challenge string) bool {
	for _, r := range challenge {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return len(challenge) >= 16 && len(challenge) <= 128
}
