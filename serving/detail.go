package serving

// Detail is the JSON body of an error answer, {"detail": text}, in the form of the original. Clients
// read the text, not a page, so "<" stays as it is.
func Detail(text string) []byte {
	body, err := marshal(map[string]string{"detail": text})
	if err != nil { // a string always encodes
		return []byte(`{"detail":"unknown error"}`)
	}
	return []byte(body)
}
