package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// optionsApp is an app with a data folder that holds the given serving.conf.
func optionsApp(t *testing.T, conf string, env map[string]string, flags ...string) *app {
	t.Helper()
	dir := t.TempDir()
	if conf != "" {
		if err := os.WriteFile(filepath.Join(dir, "serving.conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	a := newApp(system{stdout: &out, stderr: &out, env: func(name string) (string, bool) {
		if name == "CLEARML_SERVING_HOME" {
			return dir, true
		}
		value, ok := env[name]
		return value, ok
	}})
	a.flags = pflag.NewFlagSet("", pflag.ContinueOnError)
	a.declare(a.flags, "serve-addr", "log-level", "color")
	if err := a.flags.Parse(flags); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFlagsWinOverVariablesOverTheFileOverTheDefault(t *testing.T) {
	conf, env := `serve_addr = "file:1"`, map[string]string{"CLEARML_SERVING_SERVE_ADDR": " env:1 "}
	for _, tc := range []struct {
		name          string
		conf          string
		env           map[string]string
		flags         []string
		value, source string
	}{
		{"flag", conf, env, []string{"--serve-addr=flag:1"}, "flag:1", "--serve-addr"},
		{"variable", conf, env, nil, "env:1", "CLEARML_SERVING_SERVE_ADDR"},
		{"an empty variable is not set", conf, map[string]string{"CLEARML_SERVING_SERVE_ADDR": " "}, nil, "file:1", "serving.conf"},
		{"file", conf, nil, nil, "file:1", "serving.conf"},
		{"default", "", nil, nil, "127.0.0.1:8080", "default"},
		{"a flag that repeats the default", conf, env, []string{"--serve-addr=127.0.0.1:8080"}, "127.0.0.1:8080", "--serve-addr"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := optionsApp(t, tc.conf, tc.env, tc.flags...).setting("serve-addr")
			if got.value != tc.value || !strings.HasSuffix(got.source, tc.source) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestUnusableSettingsNameWhereTheyWereSet(t *testing.T) {
	a := optionsApp(t, "log_level = loud", map[string]string{
		"CLEARML_SERVING_POLL_FREQ": "soon", "CLEARML_DEFAULT_METRIC_LOG_FREQ": "2", "CLEARML_SERVING_NUM_PROCESS": "-1",
		"CLEARML_SERVING_ADDR_FALLBACK": "maybe",
	}, "--color=pink")
	_, poll := a.duration("poll-freq", time.Minute)
	_, share := a.share("metric-log-freq")
	_, whole := a.whole("num-process")
	_, on := a.on("addr-fallback")
	_, color := a.choice("color", "auto", "always", "never")
	_, level := a.choice("log-level", "", "debug", "info")
	for want, err := range map[string]error{
		"CLEARML_SERVING_POLL_FREQ: 'soon'": poll, "CLEARML_DEFAULT_METRIC_LOG_FREQ: '2'": share, "CLEARML_SERVING_NUM_PROCESS: '-1'": whole,
		"CLEARML_SERVING_ADDR_FALLBACK: 'maybe'": on, "--color: 'pink'": color, "serving.conf: 'loud'": level,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestTheLevelsOfTheOriginalsServerAreOurs(t *testing.T) {
	for _, tc := range []struct{ uvicorn, ours, want string }{
		{"WARNING", "", "warn"},
		{"critical", "", "error"},
		{"trace", "", "debug"},
		{"info", "", "info"},
		{"trace", "error", "error"},
		{"", "", ""},
	} {
		a := optionsApp(t, "", map[string]string{uvicornLogLevel: tc.uvicorn, "CLEARML_SERVING_LOG_LEVEL": tc.ours})
		if got, err := a.logLevel(); got != tc.want || err != nil {
			t.Errorf("%+v: %s, %v", tc, got, err)
		}
	}
	for variable, value := range map[string]string{uvicornLogLevel: "loud", "CLEARML_SERVING_LOG_LEVEL": "warning"} {
		if _, err := optionsApp(t, "", map[string]string{variable: value}).logLevel(); err == nil || !strings.Contains(err.Error(), variable+": '"+value+"'") {
			t.Errorf("%s=%s: %v", variable, value, err)
		}
	}
}

func TestMinutesMayBeFractions(t *testing.T) {
	a := optionsApp(t, "poll_freq = 0.1", nil)
	if got, err := a.duration("poll-freq", time.Minute); err != nil || got != 6*time.Second {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestConfigurationFileIsRefusedWhenItCannotBeUsed(t *testing.T) {
	for conf, want := range map[string]string{
		"serve_addr = [": "serving.conf: line 1",
		"serve_adr = x":  "unknown setting 'serve_adr'",
		"data_dir = x":   "unknown setting 'data_dir'",
		"serve_addr { }": "not a single value",
	} {
		if err := optionsApp(t, conf, nil).checkConfigFile(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", conf, err, want)
		}
	}
	if err := optionsApp(t, "serve_addr = x", nil).checkConfigFile(); err != nil {
		t.Error(err)
	}
	a := optionsApp(t, "", map[string]string{"CLEARML_SERVING_CONFIG": "/nowhere/serving.conf"})
	if err := a.checkConfigFile(); err == nil || !strings.Contains(err.Error(), "/nowhere/serving.conf") {
		t.Errorf("a file that is named must exist: %v", err)
	}
}

// optionUses are the names of options in the code of this package.
type optionUses struct {
	read     map[string]string // name -> file
	declared map[string]string
}

// findOptionUses reads the package's source. An option is read by a.text("name") and
// the like; address and certificate options are named in the table of sockets.
func findOptionUses(t *testing.T) optionUses {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	readers := []string{"text", "whole", "on", "share", "duration", "seconds", "choice", "setting"}
	uses := optionUses{map[string]string{}, map[string]string{}}
	var prefixes, suffixes []string // of the options of certificates
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr: // socket{option: "serve-addr", tls: "tls"}
				key, ok := n.Key.(*ast.Ident)
				if ok && key.Name == "option" {
					addText(n.Value, func(name string) { uses.read[name] = file })
				}
				if ok && key.Name == "tls" {
					addText(n.Value, func(name string) { prefixes = append(prefixes, name) })
				}
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				switch {
				case f.Sel.Name == "declare":
					for _, arg := range n.Args {
						addText(arg, func(name string) { uses.declared[name] = file })
					}
				case slices.Contains(readers, f.Sel.Name) && isApp(f.X) && len(n.Args) > 0:
					addText(n.Args[0], func(name string) { uses.read[name] = file })
					if sum, ok := n.Args[0].(*ast.BinaryExpr); ok {
						addText(sum.Y, func(name string) { suffixes = append(suffixes, name) })
					}
				}
			case *ast.RangeStmt: // for _, name := range []string{…} { a.declare(flags, name) }
				if list, ok := n.X.(*ast.CompositeLit); ok && strings.Contains(nodeText(t, file, n.Body), "a.declare(") {
					for _, element := range list.Elts {
						addText(element, func(name string) { uses.declared[name] = file })
					}
				}
			}
			return true
		})
	}
	for _, prefix := range prefixes {
		for _, suffix := range suffixes {
			if name := prefix + suffix; slices.ContainsFunc(optionTable, func(o option) bool { return o.name == name }) {
				uses.read[name] = "sockets.go"
			}
		}
	}
	return uses
}

// isApp tells whether an expression is the app, by its name.
func isApp(e ast.Expr) bool {
	if field, ok := e.(*ast.SelectorExpr); ok { // s.app
		return field.Sel.Name == "app"
	}
	name, ok := e.(*ast.Ident)
	return ok && name.Name == "a"
}

// addText calls add with the text of a literal, and with nothing else.
func addText(e ast.Expr, add func(string)) {
	if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
		if text, err := strconv.Unquote(literal.Value); err == nil {
			add(text)
		}
	}
}

func nodeText(t *testing.T, file string, n ast.Node) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[n.Pos()-1 : n.End()-1]) // the only file of its set begins at 1
}

func TestEveryOptionThatTheCodeNamesIsInTheTable(t *testing.T) {
	uses := findOptionUses(t)
	for _, named := range []map[string]string{uses.read, uses.declared} {
		if len(named) < 10 {
			t.Errorf("only %d names found: the search of this test is out of date", len(named))
		}
		for name, file := range named {
			if !slices.ContainsFunc(optionTable, func(o option) bool { return o.name == name }) {
				t.Errorf("%s names the option %q, which is not in the table", file, name)
			}
		}
	}
}

// A row that no code reads would be a promise of "help environment" that is not kept.
func TestEveryOptionInTheTableIsReadByTheCode(t *testing.T) {
	uses := findOptionUses(t)
	var source strings.Builder // of the packages that read the SDK's variables themselves
	for _, dir := range []string{"clearml", "outbound"} {
		files, err := filepath.Glob("../../" + dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				source.Write(text)
			}
		}
	}
	for _, o := range optionTable {
		if _, declared := uses.declared[o.name]; declared == o.noFlag {
			t.Errorf("%s: noFlag is %v, but a command declares the flag: %v", o.name, o.noFlag, declared)
		}
		if uses.read[o.name] != "" {
			continue
		}
		known := func(variable string) bool { return strings.Contains(source.String(), strconv.Quote(variable)) }
		if o.name == "cert-file" {
			continue // by crypto/x509
		}
		if !o.noFlag || !o.noFile || !slices.ContainsFunc(o.variables, known) {
			t.Errorf("no code reads %s (%s)", o.name, strings.Join(o.variables, ", "))
		}
	}
}

func TestTheTableOfOptionsIsWellFormed(t *testing.T) {
	groups := []string{optionsProgram, optionsListen, optionsInference, optionsStatistics, optionsSeries, optionsTriton, optionsServer}
	seen, last := map[string]bool{}, 0
	for _, o := range optionTable {
		at := slices.Index(groups, o.group)
		if at < last {
			t.Errorf("%s: group %q is out of order", o.name, o.group)
		}
		last = at
		for _, name := range append([]string{o.name}, o.variables...) {
			if seen[name] {
				t.Errorf("%s stands there twice", name)
			}
			seen[name] = true
		}
		if o.help == "" || len(o.variables) == 0 {
			t.Errorf("%s has no help or no variable", o.name)
		}
	}
}

func TestAMemoryBudgetIsASizeOrAShare(t *testing.T) {
	const all = 10 << 30
	for value, want := range map[string]int64{"": 8 << 30, "50%": 5 << 30, "12.5 %": 10 << 27, "2GiB": 2 << 30, "0": 0, "0%": 0, "100%": all, "512M": 512 << 20} {
		env := map[string]string{"CLEARML_SERVING_MEMORY_BUDGET": value}
		if got, err := optionsApp(t, "", env).setting("memory-budget").memory(all); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", value, got, err, want)
		}
	}
	for _, value := range []string{"101%", "-1%", "NaN%", "%", "much", "-5", "5 apples"} {
		env := map[string]string{"CLEARML_SERVING_MEMORY_BUDGET": value}
		if got, err := optionsApp(t, "", env).setting("memory-budget").memory(all); err == nil || !strings.Contains(err.Error(), "CLEARML_SERVING_MEMORY_BUDGET") {
			t.Errorf("%q is %d (%v), want an error that says where it was set", value, got, err)
		}
	}
	if got, err := optionsApp(t, "", nil).setting("memory-budget").memory(0); err != nil || got != 0 {
		t.Errorf("a share of unknown memory is %d (%v)", got, err)
	}
}
