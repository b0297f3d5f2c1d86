package rest

// Shown hides credentials of this service from user code.
func (f handler) Shown(name, value string) (string, bool) { return f.core.Shown(name, value) }
