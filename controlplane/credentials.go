package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"clearmlserving/atomicfile"
	"clearmlserving/controlplane/api"
)

// credentialsFile holds the credentials that the installation began with, the only
// place where their secret is: the database has a hash.
const credentialsFile = "credentials.json"

// keepCredentials returns the credentials of the file. When it is missing, or the
// database doesn't know what it holds, new ones are made and put there; those made
// before stay valid for whoever uses them.
func keepCredentials(ctx context.Context, dir string, auth *api.Auth, log *slog.Logger) (api.Credentials, error) {
	path := filepath.Join(dir, credentialsFile)
	have, err := readCredentials(path, log)
	if err != nil {
		return api.Credentials{}, err
	}
	kept, created, err := auth.EnsureDefaults(ctx, have)
	if err != nil || !created {
		return kept, err
	}
	if err := setAside(path); err != nil {
		return api.Credentials{}, err
	}
	if err := writeCredentials(path, kept); err != nil {
		return api.Credentials{}, err
	}
	log.Info("credentials made", "path", path, "access_key", kept.AccessKey)
	return kept, nil
}

// readCredentials returns none when the file is missing or damaged, and closes it to
// others of this machine when somebody has opened it to them.
func readCredentials(path string, log *slog.Logger) (api.Credentials, error) {
	var c api.Credentials
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the credentials: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return c, fmt.Errorf("close the credentials to others: %w", err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the credentials: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		log.Warn("damaged credentials file is set aside and made anew", "path", path, "err", err)
		return api.Credentials{}, nil
	}
	return c, nil
}

// setAside keeps a file that is about to be replaced: it may belong to another
// database, copied apart from it.
func setAside(path string) error {
	if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the old credentials aside: %w", err)
	}
	return nil
}

// writeCredentials replaces the file. Only its owner can read it.
func writeCredentials(path string, c api.Credentials) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the credentials: %w", err)
	}
	if err := atomicfile.Write(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	return nil
}
