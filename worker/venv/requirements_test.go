package venv

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWordsThatMayBeFiles(t *testing.T) {
	for text, want := range map[string][]string{
		"numpy\n# ./comment.whl\n":                 nil,
		"-r more.txt # and more":                   {"more.txt"},
		"--requirement=more.txt":                   {"more.txt"},
		"-rmore.txt\n-c limits.txt":                {"more.txt", "limits.txt"},
		"tiny @ file:wheels/tiny-1.0.whl":          {"wheels/tiny-1.0.whl"},
		"./wheels/tiny.whl":                        {"./wheels/tiny.whl"},
		"../outside.txt /etc/passwd https://x/y.z": nil,
		"": nil,
	} {
		if got := named(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestEveryFileThatIsNamedCounts(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func() string {
		t.Helper()
		text, err := requirements(dir)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write("requirements.txt", "-r more.txt\n./tiny.whl\n-r nowhere.txt\n")
	write("more.txt", "-c limits.txt\n-r requirements.txt\n")
	write("limits.txt", "numpy<3\n")
	write("tiny.whl", "1")
	write("preprocess.py", "1")
	before := read()
	write("preprocess.py", "2")
	if read() != before {
		t.Error("code is none of the requirements")
	}
	for _, name := range []string{"requirements.txt", "more.txt", "limits.txt", "tiny.whl"} {
		old, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(old)+"# changed\n")
		if read() == before {
			t.Errorf("a change of %s is not seen", name)
		}
		write(name, string(old))
	}
}

func TestWhatIsSaidToOneInstallerHoldsForTheOther(t *testing.T) {
	for _, tc := range []struct{ env, added []string }{
		{[]string{"PIP_INDEX_URL=a", "PIP_FIND_LINKS=b", "UV_FIND_LINKS=c", "PIP_NO_INDEX="}, []string{"UV_DEFAULT_INDEX=a"}},
		{[]string{"REQUESTS_CA_BUNDLE=a"}, []string{"SSL_CERT_FILE=a"}},
		{[]string{"CURL_CA_BUNDLE=a", "REQUESTS_CA_BUNDLE=b", "PIP_CERT=c"}, []string{"SSL_CERT_FILE=c"}},
		{[]string{"SSL_CERT_FILE=a"}, []string{"PIP_CERT=a"}},
		{[]string{"SSL_CERT_FILE=a", "CURL_CA_BUNDLE=b"}, nil},
	} {
		if got, want := forBoth(tc.env), slices.Concat(tc.env, tc.added); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzNamed(f *testing.F) {
	f.Add("-r a.txt\n")
	f.Add("x @ file:../y.whl # z")
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range named(text) {
			if !filepath.IsLocal(name) {
				t.Errorf("%q names %q, which lies elsewhere", text, name)
			}
		}
	})
}
