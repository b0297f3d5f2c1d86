package torchserve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"sync"
	"time"
)

// keys are the tokens of a server, from the file that it writes. They expire after an hour by default; then the
// server is asked for new ones, which it writes to the same file.
type keys struct {
	path       string // "": the server wants none
	management string // base URL
	client     *http.Client

	turn chan struct{} // has one place: for who renews a key

	mu   sync.Mutex // guards what follows
	file keyFile
	read bool
}

func newKeys(path, management string, client *http.Client) *keys {
	return &keys{path: path, management: management, client: client, turn: make(chan struct{}, 1)}
}

// keyFile is the file as the server writes it.
type keyFile struct {
	Management key `json:"management"`
	Inference  key `json:"inference"`
	API        key `json:"API"`
}

type key struct {
	Key     string    `json:"key"`
	Expires time.Time `json:"expiration time"`
}

const (
	forManagement = "management"
	forInference  = "inference"

	mostKeyFile = 64 << 10
	renewBefore = time.Minute // of the end
)

func (f *keyFile) of(kind string) *key {
	if kind == forManagement {
		return &f.Management
	}
	return &f.Inference
}

// get returns a key that is valid, "" if the server wants none. refused is the key that the server has just
// refused, "" if it has not. While another request renews the key, one that has not expired is good enough.
func (k *keys) get(ctx context.Context, kind, refused string) (string, error) {
	if k.path == "" {
		return "", nil
	}
	found, left := k.known(kind, refused)
	if left > renewBefore {
		return found, nil
	}
	select {
	case k.turn <- struct{}{}:
	default:
		if left > 0 {
			return found, nil
		}
		select {
		case k.turn <- struct{}{}:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for a new key of TorchServe: %w", context.Cause(ctx))
		}
	}
	defer func() { <-k.turn }()
	if found, left = k.known(kind, refused); left > renewBefore {
		return found, nil
	}
	if err := k.load(); err != nil {
		return "", err
	}
	if found, left = k.known(kind, refused); left > renewBefore {
		return found, nil
	}
	if err := k.renew(ctx, kind); err != nil {
		if found != "" { // not expired yet
			return found, nil
		}
		return "", err
	}
	if err := k.load(); err != nil {
		return "", err
	}
	found, _ = k.known(kind, "")
	return found, nil
}

// known is the key that was read last, and how long it is valid. "": there is none that the server has not refused.
func (k *keys) known(kind, refused string) (found string, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.file.of(kind)
	switch {
	case !k.read || f.Key == refused:
		return "", 0
	case f.Key != "" && f.Expires.IsZero():
		return f.Key, math.MaxInt64
	}
	return f.Key, time.Until(f.Expires)
}

// keyError is the reason why there is no key.
type keyError struct{ err error }

func (k *keyError) Error() string { return k.err.Error() }

func (k *keyError) Unwrap() error { return k.err }

// with calls ask with a key, and once more with a new one if the server has refused it. The error is that of ask, or
// a *keyError.
func (k *keys) with(ctx context.Context, kind string, ask func(key string) (refusedKey bool, err error)) error {
	refused := ""
	for {
		key, err := k.get(ctx, kind, refused)
		if err != nil {
			return &keyError{err}
		}
		refusedKey, err := ask(key)
		if !refusedKey || key == "" || refused != "" {
			return err
		}
		refused = key
	}
}

// load reads the file.
func (k *keys) load() error {
	f, err := os.Open(k.path)
	if err != nil {
		return fmt.Errorf("read TorchServe's keys: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(io.LimitReader(f, mostKeyFile))
	if err != nil {
		return fmt.Errorf("read TorchServe's keys: %w", err)
	}
	found, err := parseKeys(text)
	if err != nil {
		return fmt.Errorf("%s: %w", k.path, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.file, k.read = found, true
	return nil
}

func parseKeys(text []byte) (f keyFile, err error) {
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("no key file of TorchServe: %w", err)
	}
	return f, nil
}

// renew asks the server for a new key. The caller has the turn: the others wait for it.
func (k *keys) renew(ctx context.Context, kind string) error {
	k.mu.Lock()
	own := k.file.API.Key
	k.mu.Unlock()
	if own == "" || k.management == "" {
		return fmt.Errorf("TorchServe refuses the key for %s in %s, or it has expired, and there is no way to a new one", kind, k.path)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.management+"/token?type="+kind, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+own)
	response, err := k.client.Do(request)
	if err != nil {
		return fmt.Errorf("get a new key of TorchServe: %w", err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, mostKeyFile)) // the status says enough
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get a new key of TorchServe: %s", wordsOf(response.StatusCode, text))
	}
	return nil
}
