package hocon

// EncodeJSON gives tests access to the encoding of any value.
func EncodeJSON(v any) (string, error) {
	text, err := encodeJSON(v)
	return string(text), err
}
