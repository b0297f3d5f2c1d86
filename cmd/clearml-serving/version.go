package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Stamped by the linker: -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "dev"
	commit  = ""
)

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version of this program, and the version of the original whose services it makes.",
		Example: "  clearml-serving version --json",
		RunE:    func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

func (a *app) printVersion() error {
	built := commit
	if info, ok := debug.ReadBuildInfo(); ok && built == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				built = s.Value
			}
		}
	}
	a.print.line("clearml-serving %s (commit %s, compatible with clearml-serving %s, %s, %s/%s)",
		version, firstOf(built, "unknown"), compatVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return a.print.result(object{
		{"version", version},
		{"commit", orNull(built)},
		{"compatible_with", compatVersion},
		{"go", runtime.Version()},
		{"os", runtime.GOOS},
		{"arch", runtime.GOARCH},
	})
}
