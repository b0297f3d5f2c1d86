package main

import (
	"github.com/spf13/cobra"

	"clearmlserving/process"
)

// guardName is the command of the process between this one and a server that it supervises.
const guardName = "guard"

func guardCommand(*app) *cobra.Command {
	return &cobra.Command{
		Use:         guardName,
		Hidden:      true,
		Args:        cobra.MinimumNArgs(1),
		Annotations: map[string]string{markWords: "", markTolerant: ""},
		RunE: func(_ *cobra.Command, command []string) error {
			if process.Guard(command) != 0 {
				return errToldAlready
			}
			return nil
		},
	}
}
