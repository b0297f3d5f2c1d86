package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// authCommand is the group of commands about the keys of a serving service.
func authCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "auth",
		Short: "Make, list and revoke the keys with which requests are sent",
		Long: `Make, list and revoke the keys with which requests are sent. A key belongs to a
serving service, and opens all of its endpoints or only those that are named. Keys
are asked for once "clearml-serving config --auth on" has been said.

To change a key without a gap: create a second one, hand it out, and revoke the first
when nobody uses it any more. Running instances follow within seconds.`,
		Example: `  clearml-serving auth create --label "shop frontend" --expires 90d
  clearml-serving config --auth on
  curl -X POST http://127.0.0.1:8080/serve/test_model_sklearn -H "Authorization: Bearer <key>" -d '{"x0": 1, "x1": 2}' \
      -H "Content-Type: application/json"
  clearml-serving auth revoke k0123456789`,
	}, authCreateCommand(a), authListCommand(a), authRevokeCommand(a))
}

func authCreateCommand(a *app) *cobra.Command {
	var endpoints []string
	var label, expires string
	var control bool
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a key and print it, once",
		Long: `Make a key and print it. It is shown only now: the serving service keeps what is
needed to recognise it, not the key itself.`,
		Example: `  clearml-serving auth create --label "shop frontend" --expires 90d
  KEY=$(clearml-serving auth create --endpoint test_model other_model --json | jq -r .key)`,
		PreRunE: func(*cobra.Command, []string) (err error) {
			if life, err = serving.ParseLife(expires); err != nil {
				return hint(err, "Try: --expires 90d")
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.Var(wordList(&endpoints), "endpoint", "names under /serve/ that the key opens, with their versions and all below them (default: every endpoint)")
	flags.StringVar(&label, "label", "", "what the key is for, shown by auth list")
	flags.StringVar(&expires, "expires", "", "how long it is good for, as in 90d or 12h (default: until it is revoked)")
	flags.BoolVar(&control, "model-control", false, "the key may also load and unload its endpoints (see config --model-control)")
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		for _, e := range endpoints {
			a.warnOfMissingEndpoint(s, e)
		}
		secret, id := serving.NewAccessKey()
		key := serving.AccessKey{Digest: serving.DigestOf(secret), Endpoints: endpoints, Label: label, Created: time.Now().UTC().Truncate(time.Second), ModelControl: control}
		if life > 0 {
			key.Expires = key.Created.Add(life)
		}
		err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
			return serving.SectionAccess, c.AddKey(id, key)
		})
		if err != nil {
			return change{}, err
		}
		a.print.line("Key %s of serving service id=%s, shown only now:", id, s.Doc.ID)
		a.print.line("%s", secret)
		if !s.Config.Access.Required {
			a.print.notice("Notice: keys are not asked for yet: clearml-serving --id %s config --auth on", s.Doc.ID)
		}
		return change{result: append(object{{"key_id", id}, {"key", secret}}, showRecord(key)...)}, nil
	})
}

func authListCommand(a *app) *cobra.Command {
	return a.reads(&cobra.Command{
		Use:     "list",
		Short:   "List the keys of a serving service",
		Long:    "List the keys of a serving service: what they are for, what they open, until when.",
		Example: "  clearml-serving auth list --json",
	}, a.authList)
}

func (a *app) authList(_ context.Context, s *operations.Service) (object, error) {
	access := serving.Resolve(s.Config, nil, nil).Access
	if access.Required {
		a.print.line("Serving service id=%s: requests need a key", s.Doc.ID)
	} else {
		a.print.line("Serving service id=%s: requests need no key", s.Doc.ID)
		a.print.notice("Notice: keys are asked for after: clearml-serving --id %s config --auth on", s.Doc.ID)
	}
	a.warnOfBroken(s.Config, serving.SectionAccess)
	var rows [][]string
	shown := []any{}
	now := time.Now()
	for _, id := range access.Sorted() {
		k := access.Keys[id]
		expires := day(k.Expires, "never")
		if k.Expired(now) {
			expires += " (expired)"
		}
		opens := "every endpoint"
		if !k.Everywhere() {
			opens = strings.Join(k.Endpoints, ", ")
		}
		if k.ModelControl {
			opens += " (and loads them)"
		}
		rows = append(rows, []string{id, k.Label, opens, day(k.Created, ""), expires})
		shown = append(shown, append(object{{"key_id", id}}, append(showRecord(k), field{"expired", k.Expired(now)})...))
	}
	if len(rows) > 0 {
		a.print.table([]string{"ID", "LABEL", "OPENS", "CREATED", "EXPIRES"}, rows)
	}
	return object{
		{"id", s.Doc.ID}, {"required", access.Required}, {"keys", shown}, {"broken", showBroken(s.Config, serving.SectionAccess)},
	}, nil
}

func authRevokeCommand(a *app) *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:         "revoke ID",
		Short:       "Take a key away",
		Long:        "Take a key away: requests that show it are refused as soon as the running instances have followed.",
		Example:     "  clearml-serving auth revoke k0123456789 --wait",
		Annotations: map[string]string{markWords: ""},
		Args:        oneArg(&id, "give the id of one key", "Try: clearml-serving auth list   (shows the ids)"),
	}
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
			return serving.SectionAccess, c.RevokeKey(id)
		})
		if err != nil {
			return change{}, hintIfNotFound(err, "Try: clearml-serving auth list   (shows the ids)")
		}
		a.print.line("Key %s of serving service id=%s is revoked", id, s.Doc.ID)
		if len(s.Config.Access.Keys) == 0 && s.Config.Access.Required {
			a.print.notice("Warning: no key is left, every request is refused; clearml-serving auth create makes one")
		}
		return change{result: object{{"key_id", id}, {"revoked", true}}}, nil
	})
}

// requireKeys is config --auth.
func (a *app) requireKeys(ctx context.Context, s *operations.Service, required bool) error {
	err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
		c.RequireKeys(required)
		return serving.SectionAccess, nil
	})
	if err != nil {
		return err
	}
	if !required {
		a.print.line("Configuring serving service [id=%s] auth=off: requests need no key", s.Doc.ID)
		return nil
	}
	a.print.line("Configuring serving service [id=%s] auth=on: requests need a key", s.Doc.ID)
	if len(s.Config.Access.Keys) == 0 {
		a.print.notice("Warning: there is no key yet, every request is refused; clearml-serving auth create makes one")
	}
	return nil
}

// allowModelControl is config --model-control.
func (a *app) allowModelControl(ctx context.Context, s *operations.Service, allowed bool) error {
	err := s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
		c.AllowModelControl(allowed)
		return serving.SectionAccess, nil
	})
	if err != nil {
		return err
	}
	if !allowed {
		a.print.line("Configuring serving service [id=%s] model_control=off: clients cannot load and unload endpoints", s.Doc.ID)
		return nil
	}
	who := "every client of an instance that only its own machine can reach"
	if s.Config.Access.Required {
		who = "clients with a key of auth create --model-control"
	}
	a.print.line("Configuring serving service [id=%s] model_control=on: %s may load and unload endpoints", s.Doc.ID, who)
	return nil
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func day(t time.Time, none string) string {
	if t.IsZero() {
		return none
	}
	return t.UTC().Format(time.DateOnly)
}

// origins reads the web pages that may send requests.
func (a *app) origins() ([]string, error) {
	s := a.setting("cors-origin")
	list := strings.FieldsFunc(s.value, func(r rune) bool { return r == ',' || r == ' ' })
	for _, origin := range list {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || origin != u.Scheme+"://"+u.Host {
			return nil, s.refuse(fmt.Sprintf("%q is not an origin: give scheme, host and port alone, as in https://app.example.com", origin))
		}
	}
	return list, nil
}
