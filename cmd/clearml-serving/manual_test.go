package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// TestManualPages makes the manual pages that packages have, into the folder of
// CLEARML_SERVING_MANUAL if it is set. Their date is that of SOURCE_DATE_EPOCH.
func TestManualPages(t *testing.T) {
	dir := os.Getenv("CLEARML_SERVING_MANUAL")
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // everybody may read them
		t.Fatal(err)
	}
	seconds, err := strconv.ParseInt(firstOf(os.Getenv("SOURCE_DATE_EPOCH"), "0"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	date := time.Unix(seconds, 0).UTC()
	root := silentRoot()
	root.DisableAutoGenTag = true
	header := doc.GenManHeader{Section: "1", Source: "clearml-serving", Manual: "ClearML Serving", Date: &date}
	forMarkdown(root)
	if err := doc.GenManTree(root, &header, dir); err != nil {
		t.Fatal(err)
	}
	eachCommand(root, func(cmd *cobra.Command) {
		path := filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%s has no manual page: %v", cmd.CommandPath(), err)
			return
		}
		for _, section := range []string{".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"} {
			if !strings.Contains(string(text), section) {
				t.Errorf("%s has no section %s", path, section)
			}
		}
	})
}

// silentRoot is the tree of commands, without an environment.
func silentRoot() *cobra.Command {
	return rootCommand(newApp(system{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, env: func(string) (string, bool) { return "", false }}))
}

// eachCommand calls do with each command that users see.
func eachCommand(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
			eachCommand(sub, do)
		}
	}
}

// forMarkdown escapes what the generator of manual pages would take for Markdown.
func forMarkdown(root *cobra.Command) {
	eachCommand(root, func(cmd *cobra.Command) {
		cmd.Long = strings.NewReplacer("_", `\_`, "*", `\*`, "<", `\<`).Replace(firstOf(cmd.Long, cmd.Short))
	})
}
