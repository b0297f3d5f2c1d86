package clearml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"clearmlserving/hocon"
	"clearmlserving/retry"
	"clearmlserving/serving"
)

// SaveSection is SaveSections for one section.
func (c *Client) SaveSection(ctx context.Context, before *Service, section serving.Section, text string) error {
	return c.SaveSections(ctx, before, map[serving.Section]string{section: text})
}

// SaveSections stores sections of a service, as JSON texts, in one call. before is the document
// that the edit is based on: if another writer has stored one of the sections since it was read,
// nothing is stored and the error is ErrConflict.
//
// A server without conditional writes is read just before the write. Another writer may have read
// it at the same time, and its write then overwrites ours. So the sections are read again after a
// pause that is longer than the time between a writer's read and its write; if a change is gone,
// the error is ErrConflict too. A change that is overwritten after that pause is not detected.
func (c *Client) SaveSections(ctx context.Context, before *Service, texts map[serving.Section]string) error {
	names := slices.Sorted(maps.Keys(texts))
	condition := map[string]string{}
	var objects []ConfigObject
	for _, section := range names {
		if _, err := hocon.Parse([]byte(texts[section]), hocon.Options{}); err != nil {
			return fmt.Errorf("section %q: what should be stored cannot be read back: %w", section, err)
		}
		condition[string(section)] = before.hash(section)
		objects = append(objects, ConfigObject{Name: string(section), Value: Text(texts[section])})
	}
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if info.Embedded() {
		return c.EditConfiguration(ctx, before.ID, objects, condition)
	}
	for attempt := 1; ; attempt++ {
		now, call, written, err := c.saveUnconditionally(ctx, before, texts, objects, attempt > 1)
		if written {
			return c.confirm(ctx, before, texts, now, call)
		}
		// The write is not retried: it would come long after the read.
		if !errors.Is(err, ErrUnavailable) || attempt >= c.retry.Attempts || ctx.Err() != nil {
			return err
		}
		if ended := retry.Sleep(ctx, c.pause(attempt, 0)); ended != nil {
			return fmt.Errorf("%w (%w)", err, ended)
		}
	}
}

// saveUnconditionally checks that the sections are still those of before, and writes at once.
// written reports that they are stored; with again, possibly by the earlier attempt, whose answer
// was lost. now is the service's task before the write, call the duration of one call.
func (c *Client) saveUnconditionally(ctx context.Context, before *Service, texts map[serving.Section]string, objects []ConfigObject, again bool) (now Task, call time.Duration, written bool, err error) {
	asked := time.Now()
	if now, err = c.Task(ctx, before.ID); err != nil {
		return now, 0, false, err
	}
	call = time.Since(asked)
	written = again
	for section, text := range texts {
		object, exists := now.Configuration[string(section)]
		stored, existed := before.stored[string(section)]
		written = written && string(object.Value) == text
		if !(again && string(object.Value) == text) && (exists != existed || string(object.Value) != stored) {
			return now, call, false, fmt.Errorf("section %q of serving service %s: %w", section, before.ID, ErrConflict)
		}
	}
	if written {
		return now, call, true, nil
	}
	limited, cancel := context.WithTimeout(ctx, settle(call)/2)
	defer cancel()
	if err := c.EditConfiguration(context.WithValue(limited, onceKey{}, true), before.ID, objects, nil); err != nil {
		if limited.Err() != nil && ctx.Err() == nil {
			err = &UnavailableError{Server: "API server", Host: c.config.API, Err: err}
		}
		return now, call, false, err
	}
	return now, max(call, time.Since(asked)/2), true, nil
}

// The pause before a written section is read again. This client needs two calls from its read to
// its write. The Python product's command line reads the service when it starts, and needs about
// fifteen calls and a second or more until it writes; blindBase is for services that it edits too.
const (
	settleBase  = 2 * time.Second
	blindBase   = 8 * time.Second
	settleCalls = 20
)

// settle is the pause after a write on a server with that duration of a call.
func settle(call time.Duration) time.Duration { return settleBase + settleCalls*call }

// editedBlindly reports whether the Python product edits the service too: its texts are not JSON,
// ours are.
func editedBlindly(t Task) bool {
	for _, section := range serving.Sections() {
		if object, ok := t.Configuration[string(section)]; ok && !json.Valid([]byte(object.Value)) {
			return true
		}
	}
	return false
}

// confirm reads sections again that were written without a condition. now is the task before the
// write, call the duration of one call. The pause has a random part, so that writers that have
// collided once do not collide again.
func (c *Client) confirm(ctx context.Context, before *Service, texts map[serving.Section]string, now Task, call time.Duration) error {
	fail := func(err error) error {
		return fmt.Errorf("the change of serving service %s was stored, but it is not known whether it stayed: %w", before.ID, err)
	}
	pause := settle(call)
	blind := editedBlindly(now)
	if blind {
		pause += blindBase - settleBase
	}
	for {
		if err := retry.Sleep(ctx, pause+rand.N(pause/2)); err != nil { //nolint:gosec // jitter needs no secret randomness
			return fail(err)
		}
		now, err := c.Task(ctx, before.ID)
		if err != nil {
			return fail(err)
		}
		for _, section := range slices.Sorted(maps.Keys(texts)) {
			stored := string(now.Configuration[string(section)].Value)
			lost, err := lostChanges(before.stored[string(section)], texts[section], stored)
			if err != nil {
				return fail(fmt.Errorf("section %q: %w", section, err))
			}
			if len(lost) > 0 {
				c.log.InfoContext(ctx, "change overwritten by another writer", "service_id", before.ID, "section", section, "values", lost)
				return fmt.Errorf("section %q of serving service %s was stored, and overwritten by another writer that had read it before: %w", section, before.ID, ErrConflict)
			}
		}
		if blind || !editedBlindly(now) {
			return nil
		}
		// The Python product has just begun to edit the service.
		blind, pause = true, blindBase-settleBase
	}
}

// lostChanges names the values that an edit has changed from before to wanted, and that have their
// old values in now. A third value is a later edit's change.
func lostChanges(before, wanted, now string) ([]string, error) {
	var values [3]map[string]string
	for i, text := range []string{before, wanted, now} {
		object, err := hocon.Parse([]byte(text), hocon.Options{})
		if err != nil {
			return nil, err
		}
		encoded, err := object.JSON()
		if err != nil {
			return nil, err
		}
		var content any
		if err := json.Unmarshal(encoded, &content); err != nil {
			return nil, err
		}
		values[i] = map[string]string{}
		if err := flatten(content, nil, values[i]); err != nil {
			return nil, err
		}
	}
	var lost []string
	names := maps.Clone(values[0])
	maps.Copy(names, values[1])
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, had := values[0][name]
		want, has := values[1][name]
		is, there := values[2][name]
		changed := was != want || had != has
		if changed && is == was && there == had {
			lost = append(lost, strings.ReplaceAll(name, "\x00", "."))
		}
	}
	return lost, nil
}

// flatten lists the values of nested objects by their paths. Lists are values. Empty objects are
// omitted, because they depend on their content.
func flatten(value any, path []string, into map[string]string) error {
	if object, ok := value.(map[string]any); ok {
		for key, inner := range object {
			if err := flatten(inner, append(slices.Clip(path), key), into); err != nil {
				return err
			}
		}
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return errors.Join(errors.New(strings.Join(path, ".")), err)
	}
	into[strings.Join(path, "\x00")] = string(text)
	return nil
}
