package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func uiCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ui",
		Short: "Print a link that opens the web pages, logged in",
		Long: `Print a link that opens the web pages of the server that "clearml-serving up" or
"clearml-serving server" runs on this machine. It logs one browser in, once, and is
worth nothing after an hour: whoever has the link may do what you may, so mind where
you send it.`,
		Example: `  clearml-serving ui
  xdg-open "$(clearml-serving --json ui | jq -r .url)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ui(cmd.Context()) },
	}
}

func (a *app) ui(ctx context.Context) error {
	link, err := a.loginLink(ctx)
	if err != nil {
		return err
	}
	a.print.line("%s", link)
	return a.print.result(object{{"url", link}})
}

// loginLink asks the server of the data folder for a link to its web pages.
func (a *app) loginLink(ctx context.Context) (string, error) {
	server, err := a.localServer()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.api+"/login/link", http.NoBody)
	if err != nil {
		return "", fmt.Errorf("ask %s for a link: %w", server.api, err)
	}
	request.SetBasicAuth(server.accessKey, server.secretKey)
	conf, err := a.cloudConfig()
	if err != nil {
		return "", err
	}
	answer, err := askOnce(request, conf.Network, conf.TLS.Servers())
	if err != nil {
		if bare := errors.Unwrap(err); bare != nil { // without method and address
			err = bare
		}
		return "", hint(fmt.Errorf("ask %s for a link: %w", server.api, err), "Try: clearml-serving up --data-dir %s", shellWord(server.dir))
	}
	defer answer.Body.Close()
	var made struct {
		URL string `json:"url"`
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask %s for a link: it answers %s", server.api, answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(&made); err != nil {
		return "", fmt.Errorf("ask %s for a link: %w", server.api, err)
	}
	return made.URL, nil
}

// greetBrowser prints the link for the first visit of the web pages.
func (a *app) greetBrowser(ctx context.Context, server *controlPlane) error {
	link, err := server.LoginLink(ctx)
	if err != nil {
		return fmt.Errorf("make the link of the web pages: %w", err)
	}
	a.print.line("Open the web pages with:  %s", link)
	a.print.line("  (once, within the hour; another link: clearml-serving ui)")
	return nil
}
