package modelfile

import (
	"bytes"
	"encoding/binary"
	"maps"
	"regexp"
	"slices"
	"strings"

	"clearmlserving/serving"
)

// The opcodes of the search in pickles. joblib writes arrays as raw bytes between them, so
// a pickle is not parsed from its beginning to its end: values are found by patterns.
const (
	opProto       = 0x80
	opFrame       = 0x95
	opMemoize     = 0x94
	opShortText   = 0x8c // one byte of length, text
	opText        = 'X'  // four bytes of length, text
	opStackGlobal = 0x93
	opTuple1      = 0x85
	opTuple3      = 0x87
	opByte        = 'K'
	opShort       = 'M'
	opPut         = 'q' // one byte of index
)

// isPickle recognises a pickle of any protocol that has a mark, and of protocol 0 those that begin
// with an object.
func isPickle(data []byte) bool {
	if len(data) > 2 && data[0] == opProto && data[1] >= 2 && data[1] <= 5 {
		return true
	}
	at := oldGlobal.FindIndex(data[:min(len(data), 200)])
	return at != nil && at[0] == 0
}

// oldGlobal is a class in protocols 0 to 3.
var oldGlobal = regexp.MustCompile(`c([A-Za-z_][\w.]*)\n([A-Za-z_]\w*)\n`)

// class is a class that a pickle names.
type class struct {
	at           int
	module, name string
}

// frameworks are the packages whose classes identify a model, with the SDK's names.
var frameworks = map[string]string{
	"sklearn": "ScikitLearn", "xgboost": "XGBoost", "lightgbm": "LightGBM", "catboost": "Catboost",
	"torch": "PyTorch", "keras": "Keras", "tensorflow": "TensorFlow",
}

// helpers are modules whose callables rebuild an object of another class.
var helpers = map[string]bool{
	"copyreg": true, "copy_reg": true, "builtins": true, "__builtin__": true, "joblib.numpy_pickle": true, "_codecs": true, "collections": true,
}

// pickle reads the classes and attributes in a pickle.
func (f *File) pickle(data []byte) {
	f.Format, f.Engine = "pickle", serving.EngineSklearn
	packages, byName := map[string]bool{}, false
	for _, c := range classes(data) {
		if c.module == "joblib.numpy_pickle" {
			f.Format = "joblib"
		}
		root, _, _ := strings.Cut(c.module, ".")
		if _, known := frameworks[root]; known || root == "numpy" || root == "scipy" || root == "pandas" {
			packages[root] = true
		}
		byName = byName || c.name == "ColumnTransformer"
		if f.Class == "" && !helpers[c.module] {
			f.Class = c.module + "." + c.name
		}
	}
	// The engine loads by joblib, which scikit-learn brings.
	packages["sklearn"], packages["joblib"] = true, true
	f.Packages = slices.Sorted(maps.Keys(packages))
	root, _, _ := strings.Cut(f.Class, ".")
	f.Framework = frameworks[root]
	if f.Version, _ = textAfter(data, "_sklearn_version"); !isVersion(f.Version) {
		f.Version = ""
	}
	f.Features = numberAfter(data, "n_features_in_")
	if f.Columns = namesAfter(data, "feature_names_in_"); len(f.Columns) != f.Features {
		f.Columns = nil
	}
	f.Table = byName && f.Columns != nil
	switch first := firstValue(data); {
	case f.Class == "" || first == '}' || first == ']' || first == ')' || first == '(' || endsWithTuple(data):
		f.Engine, f.Why = "", "it holds no object with a method predict, such as a dictionary: give code whose load(self, local_file_name) returns the model"
	case root == "torch" || root == "tensorflow" || root == "keras" || root == "numpy" || root == "pandas":
		f.Engine, f.Why = "", "it holds a "+f.Class+": give code whose load(self, local_file_name) returns the model"
	}
}

// firstValue is the opcode of the pickled object itself.
func firstValue(data []byte) byte {
	for len(data) > 0 {
		switch {
		case data[0] == opProto && len(data) > 2:
			data = data[2:]
		case data[0] == opFrame && len(data) > 9:
			data = data[9:]
		default:
			return data[0]
		}
	}
	return 0
}

// endsWithTuple reports a tuple of one to three items, whose opcode is after them.
func endsWithTuple(data []byte) bool {
	data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte(".")), []byte{opMemoize})
	return len(data) > 0 && data[len(data)-1] >= opTuple1 && data[len(data)-1] <= opTuple3
}

// classes finds the classes that a pickle names, in the order of the file.
func classes(data []byte) []class {
	var found []class
	if data[0] != opProto || data[1] < 4 {
		for _, at := range oldGlobal.FindAllSubmatchIndex(data, -1) {
			found = append(found, class{at[0], string(data[at[2]:at[3]]), string(data[at[4]:at[5]])})
		}
	}
	for at := 0; ; at++ {
		next := bytes.IndexByte(data[at:], opShortText)
		if next < 0 {
			break
		}
		at += next
		module, rest := text(data[at:])
		name, rest := text(rest)
		if len(rest) > 0 && rest[0] == opStackGlobal && isName(module) && isName(name) {
			found = append(found, class{at, module, name})
		}
	}
	slices.SortFunc(found, func(a, b class) int { return a.at - b.at })
	return found
}

func isName(text string) bool {
	return text != "" && strings.IndexFunc(text, func(r rune) bool {
		return r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}

// isVersion reports whether a text of a file can be a version, and nothing else in a line of requirements.
func isVersion(text string) bool {
	return text != "" && text[0] >= '0' && text[0] <= '9' && isName(strings.NewReplacer("+", "_", "!", "_").Replace(text))
}

// text reads a text at the beginning of data, and skips its entry in the memo.
func text(data []byte) (value string, rest []byte) {
	switch {
	case len(data) > 2 && data[0] == opShortText && int(data[1]) <= len(data)-2:
		value, data = string(data[2:2+int(data[1])]), data[2+int(data[1]):]
	case len(data) > 5 && data[0] == opText && uint64(binary.LittleEndian.Uint32(data[1:])) <= uint64(len(data)-5):
		end := 5 + int(binary.LittleEndian.Uint32(data[1:]))
		value, data = string(data[5:end]), data[end:]
	default:
		return "", nil
	}
	switch {
	case len(data) > 0 && data[0] == opMemoize:
		data = data[1:]
	case len(data) > 1 && data[0] == opPut:
		data = data[2:]
	}
	return value, data
}

// after returns the data after the first text that equals key, nil if there is none.
func after(data []byte, key string) []byte {
	for {
		at := bytes.Index(data, []byte(key))
		if at < 0 {
			return nil
		}
		for _, start := range []int{at - 2, at - 5} { // the two forms of a text
			if start >= 0 {
				if value, rest := text(data[start:]); value == key {
					return rest
				}
			}
		}
		data = data[at+len(key):]
	}
}

func textAfter(data []byte, key string) (value string, rest []byte) { return text(after(data, key)) }

// numberAfter is the whole number that follows a key, 0 if there is none.
func numberAfter(data []byte, key string) int {
	switch rest := after(data, key); {
	case len(rest) > 1 && rest[0] == opByte:
		return int(rest[1])
	case len(rest) > 2 && rest[0] == opShort:
		return int(binary.LittleEndian.Uint16(rest[1:]))
	}
	return 0
}

// namesAfter are the texts of the array that follows a key: NumPy pickles its items as one list.
func namesAfter(data []byte, key string) []string {
	rest := after(data, key)
	rest = rest[:min(len(rest), 1<<20)]
	for len(rest) > 0 {
		at := bytes.IndexByte(rest, ']')
		if at < 0 {
			return nil
		}
		rest = rest[at+1:]
		items := rest
		switch {
		case len(items) > 0 && items[0] == opMemoize:
			items = items[1:]
		case len(items) > 1 && items[0] == opPut:
			items = items[2:]
		}
		if len(items) == 0 || items[0] != '(' {
			continue
		}
		var names []string
		items = items[1:]
		for {
			name, next := text(items)
			if next == nil {
				break
			}
			names, items = append(names, name), next
		}
		if names != nil {
			return names
		}
	}
	return nil
}
