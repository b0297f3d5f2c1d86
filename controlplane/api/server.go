package api

import (
	"context"
	"errors"

	"clearmlserving/controlplane/documents"
	"clearmlserving/controlplane/store"
)

// serverCalls lists the calls of the server service.
func (s *Server) serverCalls() []callEntry {
	return []callEntry{
		{"server.info", mayRead, typed(s.serverInfo)},
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
		uid = documents.NewID()
		return tx.SetSetting(ctx, serverUID, uid)
	})
	return uid, err
}
