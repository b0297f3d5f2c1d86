package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"clearmlserving/controlplane"
	"clearmlserving/controlplane/store"
)

func backupCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save everything of the embedded ClearML server in one file",
		Long: `Save everything that the embedded ClearML server keeps in one file: tasks, models,
projects, users, reports, the files of models and artifacts, credentials, and the key
of its tokens. A server may run meanwhile and goes on.

The file is read back before it gets its name, and none is ever replaced. It is
readable by you alone: whoever has it can act as your users. It fits a server with
any database, so backup and restore also move one to PostgreSQL, or back.`,
		Example: `  clearml-serving server backup clearml-$(date +%F).backup
  clearml-serving server backup all.backup --database-url postgres://clearml@db/clearml`,
		Annotations: map[string]string{markWords: "file"},
		Args:        oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.archive(cmd.Context(), "Saved", args[0], controlplane.Backup)
		},
	}
	a.declare(cmd.Flags(), "database-url")
	return cmd
}

func restoreCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make an embedded ClearML server of a saved file",
		Long: `Make an embedded ClearML server of a file that "server backup" has saved, in a data
folder that holds none yet, and with --database-url in an empty database. A cut or
damaged file is refused before anything is written.`,
		Example: `  clearml-serving server restore clearml-2026-11-23.backup --data-dir ./restored
  clearml-serving server restore all.backup --database-url postgres://clearml@db/clearml`,
		Annotations: map[string]string{markWords: "file"},
		Args:        oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.archive(cmd.Context(), "Restored", args[0], controlplane.Restore)
		},
	}
	a.declare(cmd.Flags(), "database-url")
	return cmd
}

// oneFile says which file is meant when none or several are named.
func oneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{command: cmd, problem: fmt.Sprintf("one FILE is required, %d were given", len(args)), hint: "Try: " + cmd.CommandPath() + " clearml.backup"}
	}
	return nil
}

// archive runs a backup or a restore and tells what was done.
func (a *app) archive(ctx context.Context, done, file string, do func(context.Context, string, controlplane.BackupOptions) (controlplane.BackupContents, error)) error {
	dir, err := a.dataDir()
	if err != nil {
		return err
	}
	bar := a.progress(done, 0)
	contents, err := do(ctx, file, controlplane.BackupOptions{
		DataDir: dir, DatabaseURL: a.text("database-url"), Version: version, Logger: a.logger(slog.LevelWarn),
		Progress: func(c controlplane.BackupContents) { bar.set(c.FileBytes) },
	})
	bar.done()
	if err != nil {
		return archiveHint(err)
	}
	a.print.line("%s %d documents, %d events, and %d files (%s): %s", done, contents.Documents, contents.Events,
		contents.Files, humanize.IBytes(uint64(contents.FileBytes)), file)
	return a.print.result(object{
		{"file", file},
		{"documents", contents.Documents},
		{"events", contents.Events},
		{"files", contents.Files},
		{"file_bytes", contents.FileBytes},
	})
}

func archiveHint(err error) error {
	switch {
	case errors.Is(err, controlplane.ErrNotEmpty):
		return hint(err, "Try: clearml-serving server restore FILE --data-dir ./restored")
	case errors.Is(err, fs.ErrExist):
		return hint(err, "Choose a name that is free: nothing is replaced")
	case errors.Is(err, store.ErrInUse):
		return hint(err, "Stop the server of that data folder first, or choose another --data-dir")
	}
	return err
}
