package tables

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// Migrate brings the tables to the newest form by the steps of the folder migrations, each
// in its own transaction. It refuses tables that a newer program wrote. With checkOnly it
// changes nothing, and refuses tables of an older program too.
func Migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, files fs.FS, checkOnly bool, opts ...goose.ProviderOption) error {
	steps, err := fs.Sub(files, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(dialect, db, steps, opts...)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	known := int64(0)
	for _, step := range provider.ListSources() {
		known = max(known, step.Version)
	}
	at, err := provider.GetDBVersion(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the version of the tables: %w", err)
	case at > known:
		return fmt.Errorf("its tables are of version %d, this program knows up to %d: use the newer program that wrote it", at, known)
	case checkOnly && at < known:
		return fmt.Errorf("its tables are of version %d, this program needs %d: start the server with this program once", at, known)
	case checkOnly:
		return nil
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the tables up to date: %w", err)
	}
	return nil
}
