package venv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Wheel is one file of a package registry.
type Wheel struct {
	Package, Version string
	SHA256           string // in hexadecimal
	// Python is the version that the file is for, such as "3.13": not that of the interpreter that fetches
	// it.
	Python string
	// PipPlatform and UVPlatform name the platform of the file in the words of each installer.
	PipPlatform, UVPlatform string
}

const noInstaller = "it is fetched by uv, or by the interpreter's own pip: python -m ensurepip installs that one"

// Fetch unpacks a wheel into a folder, which it creates. The installer of the base finds the file as it
// finds every package, and compares its hash. The error is an *Error if the installer fails.
func (m *Maker) Fetch(ctx context.Context, base Interpreter, w Wheel, into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	const listed = "fetched.txt"
	line := fmt.Sprintf("%s==%s --hash=sha256:%s\n", w.Package, w.Version, w.SHA256)
	if err := os.WriteFile(filepath.Join(into, listed), []byte(line), 0o600); err != nil {
		return err
	}
	r := recipe{base: base, what: "fetch " + w.Package, name: w.Package, dir: into}
	same := []string{"install", "--no-deps", "--only-binary=:all:", "--python-version", w.Python, "--target", into, "--require-hashes", "-r", listed}
	pip := append([]string{base.Path, "-m", "pip", "--disable-pip-version-check", "--no-input"}, same...)
	_, err := m.run(ctx, r, m.o.Logger, noInstaller, append(pip, "--progress-bar", "off", "--implementation", "cp", "--platform", w.PipPlatform)...)
	if err == nil || ctx.Err() != nil || !m.hasUV(ctx, r, m.o.Logger) {
		return err
	}
	uv := append([]string{m.o.UV, "pip"}, same...)
	if _, errUV := m.run(ctx, r, m.o.Logger, "", append(uv, "--python", base.Path, "--python-platform", w.UVPlatform)...); errUV != nil {
		return errors.Join(err, errUV)
	}
	return nil
}
