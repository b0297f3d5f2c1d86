// Command monitoring writes the Grafana dashboards of this folder: go run ./monitoring, or make monitoring.
//
// The dashboards are lists of panels (dashboards.go), which build.go turns into Grafana's JSON. Every panel
// uses the template variable "datasource", and every dashboard has a fixed uid, so that a provisioned
// dashboard works with any Prometheus and its links never change. The rules of prometheus/ are written by hand
// and tested with promtool.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"clearmlserving/atomicfile"
)

const folder = "monitoring/grafana/dashboards"

func main() {
	if err := write(folder); err != nil {
		fmt.Fprintln(os.Stderr, "monitoring:", err)
		os.Exit(1)
	}
}

func write(folder string) error {
	for _, b := range boards {
		text, err := b.json()
		if err != nil {
			return fmt.Errorf("dashboard %s: %w", b.uid, err)
		}
		if err := atomicfile.Write(filepath.Join(folder, b.file()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
