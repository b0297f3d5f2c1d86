package venv_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"clearmlserving/process"
	"clearmlserving/worker/venv"
)

// withPip is an environment of base with pip: one that uv has made has none.
func withPip(t *testing.T, base venv.Interpreter) venv.Interpreter {
	t.Helper()
	made := filepath.Join(t.TempDir(), "base")
	child, err := process.Start(t.Context(), process.Spec{Path: base.Path, Args: []string{"-I", "-m", "venv", made}, Env: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	if d := child.Death(); d.Code != 0 {
		t.Fatalf("make an environment: %s", d.Detail())
	}
	return venv.Interpreter{Path: filepath.Join(made, "bin/python"), Version: base.Version}
}

// The versions of an environment are chosen once, and installed with these elsewhere.
func TestPinnedEnvironmentsHaveTheVersionsThatWereChosen(t *testing.T) {
	base := withPip(t, realPython(t))
	packages := t.TempDir()
	wheel(t, packages, "tiny", "41")
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PIP_NO_INDEX=1", "PIP_FIND_LINKS=" + packages}
	code := t.TempDir()
	for file, text := range map[string]string{"requirements.txt": "tiny>=0.5\n", "json.py": "raise SystemExit('of the code')\n"} {
		if err := os.WriteFile(filepath.Join(code, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := venv.New(venv.Options{Dir: t.TempDir(), Env: env, UV: "no-such-uv"})
	defer m.Close()
	pins, err := m.Pins(t.Context(), base, code, venv.RequirementsFile)
	if err != nil || pins != "tiny==1.0\n" {
		t.Fatalf("pins: %q, %v", pins, err)
	}
	name, err := venv.ConstraintsName(code)
	if err != nil {
		t.Fatal(err)
	}
	constraints := t.TempDir()
	if err := os.WriteFile(filepath.Join(constraints, name), []byte("tiny==0.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pinned := venv.New(venv.Options{Dir: t.TempDir(), Constraints: constraints, Env: env, UV: "no-such-uv"})
	defer pinned.Close()
	if _, err := pinned.Own(t.Context(), base, code); err == nil || !strings.Contains(err.Error(), "tiny") {
		t.Errorf("an environment was made of another version than the pinned one: %v", err)
	}
	if err := os.WriteFile(filepath.Join(constraints, name), []byte(pins), 0o644); err != nil {
		t.Fatal(err)
	}
	made, err := pinned.Own(t.Context(), base, code)
	if err != nil {
		t.Fatal(err)
	}

	// Other versions make another environment, also in the same folder.
	if err := os.WriteFile(filepath.Join(constraints, name), []byte(pins+"other==2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if other, err := pinned.Own(t.Context(), base, code); err != nil || other == made {
		t.Errorf("with other versions: %v, %v; before %v", other, err, made)
	}
	if err := os.WriteFile(filepath.Join(constraints, name), []byte(pins), 0o644); err != nil {
		t.Fatal(err)
	}

	// The folder of an image is only read: no lock, no time of use, no installer.
	image := filepath.Dir(made.Dir)
	if err := os.RemoveAll(made.Dir + ".use"); err != nil {
		t.Fatal(err)
	}
	before := files(t, image)
	reader := venv.New(venv.Options{Dir: filepath.Join(t.TempDir(), "never"), Made: image, Constraints: constraints, UV: "no-such-uv"})
	defer reader.Close()
	found, err := reader.Own(t.Context(), base, code)
	if err != nil || found != made {
		t.Errorf("found %v, %v; want %v", found, err, made)
	}
	if after := files(t, image); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("the folder has changed: %v, before %v", after, before)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
