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

// credentialsFile holds the first credentials. It is the only place of their secret: the
// database has a hash.
const credentialsFile = "credentials.json"

// keepCredentials returns the credentials of the file. If it is missing, or the database
// does not know its credentials, new ones are created and stored there; earlier ones stay
// valid.
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
	// The old file may belong to another database, copied apart from it.
	if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return api.Credentials{}, fmt.Errorf("set the old credentials aside: %w", err)
	}
	if err := writeCredentials(path, kept); err != nil {
		return api.Credentials{}, err
	}
	log.Info("credentials made", "path", path, "access_key", kept.AccessKey)
	return kept, nil
}

// readCredentials returns none if the file is missing or damaged. It removes permissions of
// other users of this machine.
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
			return c, fmt.Errorf("remove the permissions of others from the credentials: %w", err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the credentials: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		log.Warn("damaged credentials file replaced", "path", path, "err", err)
		return api.Credentials{}, nil
	}
	return c, nil
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
