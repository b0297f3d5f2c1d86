package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// probeTime bounds a probe: container engines kill a check that takes longer than theirs.
const probeTime = 5 * time.Second

func probeCommand(a *app) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Tell whether the service of the data folder answers",
		Long: `Tell whether the service that runs from the data folder answers: the exit code is 0 if
it does, else 1. It is what the images use as their health check, so it needs nothing
but this program. With --ready an inference service must also have loaded its endpoints.`,
		Example: `  clearml-serving probe
  clearml-serving probe --ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.probe(cmd.Context(), ready) },
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "fail while an inference service has not loaded its endpoints")
	return cmd
}

func (a *app) probe(ctx context.Context, ready bool) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	urls, err := announced(dir)
	if err != nil {
		return err
	}
	paths := map[string]string{serveSocket.name: "/livez", statisticsSocket.name: "/livez", apiSocket.name: "/livez", tritonSocket.name: "/livez"}
	if ready {
		paths[serveSocket.name] = "/readyz"
	}
	// The service is on this machine: its certificate may be for another name, and proxies must not be asked.
	client := &http.Client{Timeout: probeTime, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // see above
	defer client.CloseIdleConnections()
	asked := 0
	for name, path := range paths {
		url, ok := urls[name]
		if !ok {
			continue
		}
		asked++
		if err := answersOK(ctx, client, url+path); err != nil {
			return err
		}
	}
	if asked == 0 {
		return notFound("no service has announced itself in %s: it is starting, or has ended", dir)
	}
	a.print.line("alive")
	return a.print.result(object{{"alive", true}})
}

// answersOK fails if a server cannot be asked or is not well. An answer that wants credentials is one.
func answersOK(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) // only for the message
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("probe: %s answers %s: %s", url, resp.Status, firstLine(string(body)))
	}
	return nil
}
