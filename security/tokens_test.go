package security_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Tokens of other servers are refused, for any algorithm in their header:
// CVE-2015-9235 and many later ones used "none", or a public key as the secret of an HMAC.
func TestCVE20159235_ForgedTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	status, body := w.ask(t, "POST", w.api+"/auth.login", "", w.basic())
	var login struct {
		Data struct {
			Token string `json:"token"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &login); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	good := login.Data.Token
	if status, body := w.ask(t, "POST", w.api+"/users.get_current_user", "", bearer(good)); status != http.StatusOK {
		t.Fatalf("the good token: %d %s", status, body)
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(good, claims); err != nil {
		t.Fatal(err)
	}
	expired := jwt.MapClaims{}
	maps.Copy(expired, claims)
	expired["exp"] = time.Now().Add(-time.Hour).Unix()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	parts := strings.Split(good, ".")
	head := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	admin := strings.Replace(decoded(t, parts[1]), `"role":"`, `"role":"admin","was":"`, 1)
	for name, token := range map[string]string{
		"alg none":                  sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims),
		"alg None, no signature":    head(`{"alg":"None","typ":"JWT"}`) + "." + parts[1] + ".",
		"alg nOnE, old signature":   head(`{"alg":"nOnE","typ":"JWT"}`) + "." + parts[1] + "." + parts[2],
		"an empty key":              sign(jwt.SigningMethodHS256, []byte{}, claims),
		"a guessed key":             sign(jwt.SigningMethodHS256, []byte("secret"), claims),
		"the key's name":            sign(jwt.SigningMethodHS256, []byte("auth.signing_key"), claims),
		"another method":            sign(jwt.SigningMethodRS256, rsaKey, claims),
		"a longer HMAC":             sign(jwt.SigningMethodHS512, []byte("secret"), claims),
		"expired":                   sign(jwt.SigningMethodHS256, []byte("secret"), expired),
		"without a signature":       parts[0] + "." + parts[1] + ".",
		"another payload":           parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(admin)) + "." + parts[2],
		"a key of its own":          head(`{"alg":"HS256","jwk":{"kty":"oct","k":"c2VjcmV0"}}`) + "." + parts[1] + "." + parts[2],
		"a key from elsewhere":      head(`{"alg":"RS256","jku":"http://127.0.0.1:1/keys"}`) + "." + parts[1] + "." + parts[2],
		"a key id that is a path":   head(`{"alg":"HS256","kid":"../../../../dev/null"}`) + "." + parts[1] + "." + parts[2],
		"one bit of the signature":  good[:len(good)-2] + flipped(good[len(good)-2:]),
		"two dots":                  "..",
		"a bare word":               "token",
		"five parts":                good + ".a.b",
		"endless":                   strings.Repeat("a", 40_000),
		"the secret key":            w.secret,
		"the key of the data plane": w.key,
	} {
		for _, call := range []string{"users.get_current_user", "tasks.get_all", "auth.get_credentials"} {
			for _, header := range []map[string]string{bearer(token), {"Cookie": "clearml_token_basic=" + token}} {
				if status, body := w.ask(t, "POST", w.api+"/"+call, "", header); status != http.StatusUnauthorized && status != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("%s, %s: %d %s", name, call, status, body)
				}
			}
		}
	}
	w.alive(t)
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

func decoded(t *testing.T, part string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func flipped(text string) string {
	if text[0] == 'A' {
		return "B" + text[1:]
	}
	return "A" + text[1:]
}
