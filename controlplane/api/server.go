package api

import (
	"context"
	"errors"
	"strings"

	"clearmlserving/controlplane/store"
)

// serverCalls lists the calls of the server service.
func (s *Server) serverCalls() []callEntry {
	return []callEntry{
		{"server.info", mayRead, typed(s.serverInfo)},
		{"server.config", mayRead, typed(s.serverConfig)},
		{"server.report_stats_option", mayRead, typed(s.reportStatsOption)},
	}
}

// serverUID is the setting that names this installation, for good.
const serverUID = "server.uid"

type infoAnswer struct {
	// Version, Build, and Commit are those of the ClearML server that this one stands for.
	Version    string `json:"version"`
	Build      string `json:"build"`
	Commit     string `json:"commit"`
	UID        string `json:"uid"`
	APIVersion string `json:"api_version"`
	// Product and ProductVersion say what it is.
	Product        string `json:"product"`
	ProductVersion string `json:"product_version"`
	// Extensions are the additions to ClearML's API that a client may use here.
	Extensions []string `json:"extensions"`
}

func (s *Server) serverInfo(ctx context.Context, _ *Call, _ none) (infoAnswer, error) {
	uid, err := s.uid(ctx)
	return infoAnswer{
		Version: announcedServer, Build: announcedBuild, APIVersion: announcedAPI, UID: uid,
		Product: "clearml-serving", ProductVersion: s.opts.Version,
		Extensions: []string{"conditional_configuration", "configuration_history", "search_after"},
	}, err
}

// uid returns the name of this installation; the first call makes it.
func (s *Server) uid(ctx context.Context) (string, error) {
	uid, err := s.store.Setting(ctx, serverUID)
	if !errors.Is(err, store.ErrNotFound) {
		return uid, err
	}
	err = s.store.Tx(ctx, func(tx store.Tx) error {
		var err error
		if uid, err = tx.Setting(ctx, serverUID); !errors.Is(err, store.ErrNotFound) {
			return err
		}
		uid = newID()
		return tx.SetSetting(ctx, serverUID, uid)
	})
	return uid, err
}

type configRequest struct {
	Path string `json:"path"`
}

// serverConfig tells pages where the parts of this installation are. A path that leads
// to nothing gives an empty object.
func (s *Server) serverConfig(_ context.Context, _ *Call, req configRequest) (map[string]any, error) {
	tree := map[string]any{
		"apps": map[string]any{},
		"urls": map[string]any{"api": s.opts.APIURL, "files": s.opts.FilesURL, "web": s.opts.WebURL},
	}
	for part := range strings.SplitSeq(req.Path, ".") {
		if part == "" {
			continue
		}
		next, ok := tree[part].(map[string]any)
		if !ok {
			return map[string]any{}, nil
		}
		tree = next
	}
	return tree, nil
}

// reportStatsOption says that nothing is reported to anybody.
func (s *Server) reportStatsOption(context.Context, *Call, none) (map[string]any, error) {
	return map[string]any{"supported": false}, nil
}
