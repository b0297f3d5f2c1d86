package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/inference"
	"clearmlserving/inference/reconcile"
	"clearmlserving/listen"
	"clearmlserving/serving"
)

// waitFlags are the flags of every command that changes what is served.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

func (w *waitFlags) declare(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&w.wait, "wait", false, "end only when the running inference service serves the change, or says why not")
	flags.DurationVar(&w.timeout, "wait-timeout", 5*time.Minute, "how long --wait waits, for example 90s")
	mark(flags, "wait", markOurs)
	mark(flags, "wait-timeout", markOurs)
	a.declare(flags, "serve-url")
}

// waiter blocks until running instances serve the state with that hash and the
// named urls in it (all, when none is named) have loaded. It returns errTimedOut when ctx ends first, and
// the reason when an endpoint cannot be loaded. refresh gives the hash of the
// stored state of this moment: somebody may have changed it further.
type waiter func(ctx context.Context, serviceID, hash string, endpoints []serving.EndpointURL, refresh func(context.Context) (string, error)) error

// finish ends a command that has changed a service: it waits when asked to, and
// prints the result for scripts.
func (a *app) finish(ctx context.Context, s *service, w waitFlags, endpoints []serving.EndpointURL, result object) error {
	if w.wait {
		if err := s.reload(ctx); err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, w.timeout)
		defer cancel()
		err := a.wait(waiting, s.doc.ID, s.hash(), endpoints, func(ctx context.Context) (string, error) {
			err := s.reload(ctx)
			return s.hash(), err
		})
		if err != nil {
			return fmt.Errorf("the change is stored, but waiting for it ended: %w", err)
		}
		a.print.line("The running inference service serves the change")
		result = append(result, field{"live", true})
	}
	return a.print.result(append(result, field{"state_hash", s.hash()}))
}

const (
	statusInterval = 200 * time.Millisecond
	// A later change of somebody else moves the hash on: every so many looks
	// the stored state is read again.
	statusRefresh = 15
)

// waitForStatus is the waiter that asks one inference service for its status.
func (a *app) waitForStatus(ctx context.Context, serviceID, hash string, endpoints []serving.EndpointURL, refresh func(context.Context) (string, error)) error {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	reason := "it has not taken in the change"
	for looks := 1; ; looks++ {
		live, err := a.liveState(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return stillWaiting(ctx, reason)
			}
			return err
		}
		if live.ServiceID != "" && live.ServiceID != serviceID {
			return hint(fmt.Errorf("the inference service at %s serves another serving service, id=%s", live.url, live.ServiceID),
				"Try: clearml-serving inference --id %s   (in another terminal), or --serve-url with the address of one that serves it", serviceID)
		}
		reason = "it has not taken in the change"
		if live.StateHash == hash {
			var done bool
			if done, reason, err = live.settled(endpoints); done || err != nil {
				return err
			}
		} else if looks%statusRefresh == 0 {
			if hash, err = refresh(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return stillWaiting(ctx, reason)
		}
	}
}

func stillWaiting(ctx context.Context, reason string) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	return hint(&marked{error: fmt.Errorf("timed out: %s; the inference service goes on by itself", reason), kind: errTimedOut},
		"Try: clearml-serving model list --verbose   (shows what it does), or a longer --wait-timeout")
}

// liveState is what a running inference service tells of itself.
type liveState struct {
	inference.Status
	url string
}

// maxStatus bounds how much of an answer is read: some 50,000 endpoints.
const maxStatus = 64 << 20

// liveState asks the running inference service what it serves.
func (a *app) liveState(ctx context.Context) (*liveState, error) {
	base, err := a.serveURL()
	if err != nil {
		return nil, err
	}
	live := &liveState{url: base}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/status", nil)
	if err != nil {
		return nil, fmt.Errorf("--serve-url %s: %w", base, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, hint(fmt.Errorf("ask the inference service for its status: %w", err), "Try: clearml-serving up   (starts one), or --serve-url with the address of a running one")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the inference service at %s for its status: it answers %s; is it a clearml-serving inference service?", base, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&live.Status); err != nil {
		return nil, fmt.Errorf("read the status of the inference service at %s: %w", base, err)
	}
	return live, nil
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
	file := filepath.Join(dir, "endpoints.json")
	endpoints, err := listen.ReadRegistry(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) || (err == nil && endpoints.URLs["serve"] == ""):
		return "", hint(fmt.Errorf("no running inference service is known (%s names none)", file), "Try: clearml-serving up   (starts one), or --serve-url with the address of a running one")
	case err != nil:
		return "", err
	}
	return strings.TrimRight(endpoints.URLs["serve"], "/"), nil
}

// settled tells whether what is named (endpoints, monitorings, canaries) has
// loaded, or everything when nothing is named. It is an error when one of the
// named has not and will not by itself.
func (l *liveState) settled(named []serving.EndpointURL) (done bool, reason string, err error) {
	wanted := map[serving.EndpointURL]bool{}
	for _, url := range named {
		wanted[url] = true
	}
	for _, p := range l.Problems {
		if url := serving.CleanURL(p.Key); wanted[url] && p.Section != serving.SectionCanary && p.Section != serving.SectionOptions {
			return false, "", fmt.Errorf("'%s' is not served as configured: %s", url, p.Text)
		}
	}
	for _, c := range l.Canaries {
		if wanted[c.URL] && len(c.Shares) == 0 {
			return false, "", fmt.Errorf("canary '%s' has nothing to choose from: %s", c.URL, c.Problem)
		}
	}
	for _, e := range l.Endpoints {
		asked := wanted[e.URL] || (e.Monitoring != "" && wanted[serving.CleanURL(e.Monitoring)])
		if len(named) > 0 && !asked {
			continue
		}
		switch {
		case e.Failure != nil && asked:
			return false, "", hint(fmt.Errorf("endpoint '%s': %s: %s", e.URL, e.Failure.Step, e.Failure.Reason), "Try: clearml-serving model list --verbose")
		case e.Failure == nil && (e.State == "loading" || e.State == "updating"):
			return false, fmt.Sprintf("endpoint '%s' is %s", e.URL, e.State), nil
		}
	}
	return true, "", nil
}

func (l *liveState) of(url serving.EndpointURL) (state, requests, failed, mean, reason string) {
	if l == nil {
		return "unknown", "", "", "", ""
	}
	for _, e := range l.Endpoints {
		if e.URL == url {
			return e.State, fmt.Sprint(e.Requests), fmt.Sprint(e.Errors), milliseconds(e.MeanMS), reasonOf(e)
		}
	}
	return "not served", "", "", "", ""
}

func reasonOf(e reconcile.EndpointStatus) string {
	reason := e.Model.Reason
	if e.Failure != nil {
		reason = e.Failure.Step + ": " + e.Failure.Reason
	}
	reason, _, _ = strings.Cut(reason, "\n")
	return reason
}

func (l *liveState) ofCanary(url serving.EndpointURL) (state, reason string) {
	if l == nil {
		return "unknown", ""
	}
	for _, c := range l.Canaries {
		if c.URL != url {
			continue
		}
		if len(c.Shares) == 0 {
			return "failed", c.Problem
		}
		return "ready", c.Problem
	}
	return "not served", ""
}

// forJSON is the state as it was told, null when it is not known.
func (l *liveState) forJSON() any {
	if l == nil {
		return nil
	}
	return l.Status
}
