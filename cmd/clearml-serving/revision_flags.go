package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// revisionFlags are the flags of the commands that make a revision on purpose.
type revisionFlags struct {
	message string
	keep    int
}

func (r *revisionFlags) declare(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.message, "message", "", "why, for model history")
	flags.IntVar(&r.keep, "keep", 0, fmt.Sprintf("how many revisions of the endpoint are kept, at most %d (default %d, or as before)", serving.MaxKeep, serving.DefaultKeep))
	mark(flags, "message", markOurs)
	mark(flags, "keep", markOurs)
}

func (r *revisionFlags) apply(s *operations.Service) {
	s.Author.Message, s.Author.Keep = r.message, min(max(r.keep, 0), serving.MaxKeep)
}

// author is the name that revisions get: that of the user on the ClearML server, else
// that of the account on this machine.
func (a *app) author(ctx context.Context, client *clearml.Client) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if name, err := client.UserName(ctx); err == nil && name != "" {
		return name
	}
	name := "unknown"
	if account, err := user.Current(); err == nil {
		name = account.Username
	}
	if machine, err := os.Hostname(); err == nil {
		name += "@" + machine
	}
	return name
}
