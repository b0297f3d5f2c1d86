package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/outbound"
)

// maxStatus bounds how much of an answer is read: some 50,000 endpoints.
const maxStatus = 64 << 20

// liveState asks the running inference service what it serves.
func (a *app) liveState(ctx context.Context) (*liveState, error) {
	base, err := a.serveURL()
	if err != nil {
		return nil, err
	}
	live := &liveState{}
	live.URL, live.Path = base, strings.Trim(a.text("serve-suffix"), "/")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/status", nil)
	if err != nil {
		return nil, fmt.Errorf("--serve-url %s: %w", base, err)
	}
	a.showServeKey(req)
	resp, err := a.ask(req)
	if err != nil {
		return nil, hint(fmt.Errorf("ask the inference service for its status: %w", err), "Try: clearml-serving up   (starts one), or --serve-url with the address of a running one")
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return nil, hint(&marked{error: fmt.Errorf("ask the inference service at %s for its status: it wants a key for all of its endpoints", base), kind: clearml.ErrUnauthorized},
			"Try: CLEARML_SERVING_KEY=<key> clearml-serving …   (clearml-serving auth create makes one)")
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the inference service at %s for its status: it answers %s; is it a clearml-serving inference service?", base, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&live.Status); err != nil {
		return nil, fmt.Errorf("read the status of the inference service at %s: %w", base, err)
	}
	return live, nil
}

// ask sends a request to a running inference service.
func (a *app) ask(req *http.Request) (*http.Response, error) {
	conf, err := a.cloudConfig()
	if err != nil {
		return nil, err
	}
	return askOnce(req, conf.Network, conf.TLS.Others())
}

// askOnce sends one request over a connection of its own.
func askOnce(req *http.Request, network outbound.Network, trust outbound.Trust) (*http.Response, error) {
	transport := network.Transport(trust, 0)
	transport.DisableKeepAlives = true
	return (&http.Client{Transport: transport}).Do(req)
}

// askLimit bounds how long one request to an endpoint may take.
const askLimit = 30 * time.Second

// post asks an endpoint of a running inference service once.
func (a *app) post(ctx context.Context, address, contentType string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	a.showServeKey(req)
	resp, err := a.ask(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	return resp.StatusCode, answer, err
}

// showServeKey puts the key of CLEARML_SERVING_KEY into a request to a running
// inference service.
func (a *app) showServeKey(req *http.Request) {
	if key := a.text("serve-key"); key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
}

// serveURL is the address of a running inference service: as given, else the
// one whose address lies in the data folder.
func (a *app) serveURL() (string, error) {
	if url := a.text("serve-url"); url != "" {
		if !strings.Contains(url, "://") {
			url = "http://" + url
		}
		return strings.TrimRight(url, "/"), nil
	}
	dir, err := a.dataDir()
	if err != nil {
		return "", err
	}
	urls, err := announced(dir)
	if err == nil && urls["serve"] == "" {
		err = hint(fmt.Errorf("no running inference service is known (%s names none)", filepath.Join(dir, "endpoints.json")), "Try: clearml-serving up   (starts one), or --serve-url with the address of a running one")
	}
	return strings.TrimRight(urls["serve"], "/"), err
}
