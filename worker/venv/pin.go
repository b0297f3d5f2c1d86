package venv

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ConstraintsName is the name of the file with the exact versions of a code folder's environment.
func ConstraintsName(folder string) (string, error) {
	text, err := requirements(folder)
	if err != nil {
		return "", err
	}
	return constraintsName(text), nil
}

func constraintsName(requirements string) string { return key("constraints", requirements) + ".txt" }

// Pins returns the exact versions that an installer would choose now for a requirements file, as a file of constraints. file is
// relative to folder. Nothing is installed. The error is an *Error if the installer fails.
func (m *Maker) Pins(ctx context.Context, base Interpreter, folder, file string) (string, error) {
	temp, err := os.MkdirTemp("", "clearml-serving-pins-")
	if err != nil {
		return "", fmt.Errorf("choose versions: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }() // the system clears its temporary folder in the end
	r := recipe{base: base, what: "choose versions", name: file, dir: folder}
	out := filepath.Join(temp, "out")
	if m.hasUV(ctx, r, m.o.Logger) {
		_, err := m.run(ctx, r, m.o.Logger, "", m.o.UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", base.Path, "--output-file", out, file)
		if err == nil {
			return pinsOfUV(out)
		}
		if ctx.Err() != nil {
			return "", err
		}
	}
	// -I: files of the code's folder must not replace modules.
	_, err = m.run(ctx, r, m.o.Logger, noInstaller, base.Path, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--dry-run", "--ignore-installed",
		"--progress-bar", "off", "--report", out, "-r", file)
	if err != nil {
		return "", err
	}
	return pinsOfPip(out)
}

func pinsOfUV(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("choose versions: %w", err)
	}
	var pins []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "==") && !strings.HasPrefix(line, "#") {
			pins = append(pins, line)
		}
	}
	return joinPins(pins), nil
}

func pinsOfPip(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("choose versions: %w", err)
	}
	var report struct {
		Install []struct {
			Metadata struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			} `json:"metadata"`
		} `json:"install"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return "", fmt.Errorf("choose versions: read the installer's report: %w", err)
	}
	var pins []string
	for _, p := range report.Install {
		if p.Metadata.Name != "" && p.Metadata.Version != "" {
			pins = append(pins, strings.ToLower(p.Metadata.Name)+"=="+p.Metadata.Version)
		}
	}
	return joinPins(pins), nil
}

// joinPins is a file of constraints; it is empty if the requirements name files only.
func joinPins(pins []string) string {
	slices.Sort(pins)
	return strings.Join(append(pins, ""), "\n")
}
