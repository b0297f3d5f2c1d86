package torchserve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

	mu   sync.Mutex // guards what follows
	file keyFile
	read bool
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
// refused, "" if it has not.
func (k *keys) get(ctx context.Context, kind, refused string) (string, error) {
	if k.path == "" {
		return "", nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	usable := func() bool {
		found := k.file.of(kind)
		return k.read && found.Key != "" && found.Key != refused && (found.Expires.IsZero() || time.Until(found.Expires) > renewBefore)
	}
	if usable() {
		return k.file.of(kind).Key, nil
	}
	if err := k.load(); err != nil {
		return "", err
	}
	if usable() {
		return k.file.of(kind).Key, nil
	}
	if err := k.renew(ctx, kind); err != nil {
		if found := k.file.of(kind); found.Key != "" && found.Key != refused { // not expired yet
			return found.Key, nil
		}
		return "", err
	}
	if err := k.load(); err != nil {
		return "", err
	}
	return k.file.of(kind).Key, nil
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

// load reads the file. k.mu is held.
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
	k.file, k.read = found, true
	return nil
}

func parseKeys(text []byte) (f keyFile, err error) {
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("no key file of TorchServe: %w", err)
	}
	return f, nil
}

// renew asks the server for a new key. k.mu is held: the others wait for it.
func (k *keys) renew(ctx context.Context, kind string) error {
	if k.file.API.Key == "" || k.management == "" {
		return fmt.Errorf("TorchServe refuses the key for %s in %s, or it has expired, and there is no way to a new one", kind, k.path)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.management+"/token?type="+kind, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+k.file.API.Key)
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
