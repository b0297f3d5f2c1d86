package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"clearmlserving/clearml"
	"clearmlserving/outbound"
)

// serverLimit bounds how long the doctor waits for a ClearML server.
const serverLimit = 15 * time.Second

// checkServer tells which ClearML server is used, where its address and
// credentials come from, and whether it takes them.
func (a *app) checkServer(ctx context.Context) []finding {
	if _, err := a.dataDir(); err != nil {
		return nil // told by the check of the folder
	}
	config, err := a.clearmlConfig()
	if errors.Is(err, clearml.ErrNotConfigured) {
		return []finding{{"server", stateWarn, err.Error(), "For the embedded server nothing is needed: clearml-serving up"}}
	}
	if err != nil {
		return []finding{{"server", stateFail, err.Error(), errorHint(err)}}
	}
	client, err := clearml.New(clearml.Options{
		Config: config, Logger: a.logger(slog.LevelError), ClientName: "clearml-serving-" + compatVersion, Retry: clearml.Retry{Attempts: 1},
	})
	if err != nil {
		return []finding{{"server", stateFail, err.Error(), errorHint(err)}}
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, serverLimit)
	defer cancel()
	found := a.checkNetwork(config)
	info, err := client.Info(ctx)
	if err != nil {
		fix := "Is it running, and is the address right? A local one is started by: clearml-serving up"
		if errors.Is(err, clearml.ErrUnauthorized) {
			fix = "Make new credentials on the server's settings page; for a local one: eval \"$(clearml-serving env)\""
		}
		if isUntrusted(err) {
			fix = errorHint(err)
		}
		return append(found, finding{"server", stateFail, err.Error(), fix})
	}
	text := fmt.Sprintf("ClearML API server %s (from %s) takes the credentials", config.API.Value, config.API.From)
	if config.AccessKey.From != "" && config.AccessKey.From != config.API.From {
		text += " (from " + config.AccessKey.From + ")"
	}
	if info.Version != "" {
		text += ", version " + info.Version
	}
	found = append([]finding{{"server", stateOK, text, ""}}, found...)
	if config.Files.Value == "" {
		found = append(found, finding{"server", stateWarn, "no file server is known: code and models cannot be uploaded", "Set CLEARML_FILES_HOST, or api.files_server in clearml.conf"})
	}
	return found
}

// checkNetwork tells how the servers' certificates are verified, and which proxy the
// SDK would ask for a server on this machine.
func (a *app) checkNetwork(config clearml.Config) []finding {
	var found []finding
	servers := []string{config.API.Value, config.Files.Value, config.Web.Value}
	if slices.ContainsFunc(servers, func(s string) bool { return strings.HasPrefix(s, "https:") }) {
		f := finding{"tls", stateOK, "the certificates of the ClearML servers are " + config.Network.Describe(config.TLS.Servers()), ""}
		if config.TLS.Insecure {
			f.state, f.fix = stateWarn, "Name the authority instead: CLEARML_API_HOST_VERIFY_CERT=/path/to/ca.pem, or api.verify_certificate in clearml.conf"
			f.text += " (" + config.TLS.From + ")"
		}
		found = append(found, f)
		if bundle := config.Network.Bundle(); bundle.Path != "" && config.TLS.Servers().Explicit {
			found = append(found, finding{
				"tls", stateWarn, fmt.Sprintf("the SDK does not follow %s, because %s is set too", config.TLS.From, bundle.From),
				"Where the SDK is used: unset REQUESTS_CA_BUNDLE CURL_CA_BUNDLE, or add the authority to " + shellWord(bundle.Path),
			})
		}
	}
	for _, server := range servers {
		u, err := url.Parse(server)
		if err != nil || server == "" {
			continue
		}
		if proxy, err := config.Network.Proxy(u); err == nil && proxy != nil {
			found = append(found, finding{"proxy", stateOK, fmt.Sprintf("%s is asked through the proxy %s", server, proxy.Redacted()), ""})
		}
	}
	if names, value := outbound.Unproxied(a.sys.env, servers...); names != nil {
		found = append(found, finding{"proxy", stateWarn, "a proxy is set, and the SDK asks it for the server on this machine too", "export " + names[0] + "=" + shellWord(value)})
	}
	return found
}
