package clearml

import (
	"fmt"
	"strings"
)

// FileURL is the URL of a file below a destination, with the path quoted as the
// SDK does it: every byte but letters, digits, "_.-~" and slashes.
func FileURL(destination, path string) string {
	return strings.TrimRight(destination, "/") + "/" + quote(strings.TrimLeft(path, "/"), "/")
}

// quote percent-encodes every byte but letters, digits, "_.-~" and the safe ones.
func quote(s, safe string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_.-~", c) >= 0, strings.IndexByte(safe, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// TaskPath is the folder of a task's files below a destination, as the SDK
// makes it: "<project>/<task name>.<task id>", with limited lengths and unusual
// characters quoted.
func TaskPath(project, projectID, name, id string) string {
	// What the SDK leaves alone in names. They are quoted once more in a URL.
	const safe = "'[]{}()$^,.; -_+-=/"
	folder := quote(shorten(name, id, 128, true), safe)
	if project == "" {
		return folder
	}
	return quote(shorten(project, projectID, 256, false), safe) + "/" + folder
}

// shorten cuts a name so that it and its id stay within a length.
func shorten(name, id string, most int, always bool) string {
	letters := []rune(name)
	if !always && len(letters) < most {
		return name
	}
	keep := max(2, most-len([]rune(id))-1)
	return string(letters[:min(keep, len(letters))]) + "." + id
}

// ArtifactFolder is the name of an artifact as a part of a path, as the SDK writes it.
func ArtifactFolder(artifact string) string {
	var b strings.Builder
	for _, r := range artifact {
		switch {
		case r == '/':
			b.WriteString(".slash.")
		case r == '\r' || r == '\n' || strings.ContainsRune(`#"';?:@&=+$,%!`, r):
			fmt.Fprintf(&b, "0x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
