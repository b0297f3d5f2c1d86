package serving

import (
	"bytes"
	"encoding/json"
)

// Detail is the JSON body of an error answer, {"detail": text}, in the form of the original. Clients
// read the text, not a page, so "<" stays as it is.
func Detail(text string) []byte {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]string{"detail": text}); err != nil { // a string always encodes
		return []byte(`{"detail":"unknown error"}`)
	}
	return bytes.TrimSuffix(body.Bytes(), []byte("\n"))
}
