package rollout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"clearmlserving/retry"
	"clearmlserving/serving"
)

const (
	hookAttempts = 3
	hookTimeout  = 10 * time.Second
	hookAnswer   = 200 // bytes of an answer that a note quotes
)

// hookBody is what a webhook gets.
type hookBody struct {
	When      string               `json:"when"` // before, after
	Canary    serving.EndpointURL  `json:"canary"`
	Candidate serving.EndpointURL  `json:"candidate"`
	Baseline  serving.EndpointURL  `json:"baseline"`
	Phase     serving.RolloutPhase `json:"phase"`
	Step      int                  `json:"step"` // from 1
	Share     float64              `json:"share"`
	By        string               `json:"by"`
	Note      string               `json:"note"`
}

// permitted asks the webhook before a step. If it refuses, or does not answer, the rollout waits for a
// person. A rollback is not asked for.
func (d *Decider) permitted(ctx context.Context, of serving.EndpointURL, m serving.RolloutMove) serving.RolloutMove {
	step := m.Phase == serving.RolloutPromoted || (m.Phase == serving.RolloutRunning && m.Step != m.From.Step)
	if m.From.Webhook == "" || !step {
		return m
	}
	if err := d.hook(ctx, "before", of, m); err != nil && ctx.Err() == nil {
		m.Phase, m.Step = serving.RolloutHeld, m.From.Step
		m.Note = fmt.Sprintf("the webhook does not permit the step: %v; resume it, promote it or take it back", err)
	}
	return m
}

// tell tells the webhook of a stored decision.
func (d *Decider) tell(ctx context.Context, of serving.EndpointURL, m serving.RolloutMove) {
	if m.From.Webhook == "" {
		return
	}
	if err := d.hook(ctx, "after", of, m); err != nil && ctx.Err() == nil {
		d.o.Logger.Warn("the webhook of a canary was not told of a decision", "canary", of, "phase", m.Phase, "err", err)
	}
}

// errRefused is an answer that another attempt would not change.
var errRefused = errors.New("refused")

// hook posts a decision. Only answers of status 500 or above, 429 and failed connections are tried again.
func (d *Decider) hook(ctx context.Context, when string, of serving.EndpointURL, m serving.RolloutMove) error {
	r := *m.From
	r.Phase, r.Step = m.Phase, m.Step
	body, err := json.Marshal(hookBody{
		When: when, Canary: of, Candidate: r.Candidate, Baseline: r.Baseline, Phase: r.Phase, Step: r.Step + 1, Share: r.Share(), By: m.By, Note: m.Note,
	})
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := d.post(ctx, r.Webhook, body)
		if err == nil || errors.Is(err, errRefused) || attempt == hookAttempts {
			return err
		}
		if ended := retry.Sleep(ctx, retry.Doubled(attempt, time.Second, 5*time.Second)); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

func (d *Decider) post(ctx context.Context, address string, body []byte) error {
	if d.o.HTTP == nil {
		return fmt.Errorf("no connections: %w", errRefused)
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address cannot be used") // the error has the whole address
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.o.HTTP.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the address, which may have a secret
		}
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, hookAnswer))
	switch {
	case resp.StatusCode < 300:
		return nil
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("status %d %s", resp.StatusCode, text)
	}
	return fmt.Errorf("status %d %s: %w", resp.StatusCode, text, errRefused)
}
