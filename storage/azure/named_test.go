package azure

import "testing"

func TestOnlyConfiguredAccountsAreNamed(t *testing.T) {
	a := New(Options{Accounts: []Account{{Name: "one", Container: "models"}, {Name: "whole"}}})
	for url, want := range map[string]bool{
		"azure://one.blob.core.windows.net/models/k": true, "azure://one.blob.core.windows.net/other/k": false,
		"azure://whole.blob.core.windows.net/any/k": true, "azure://another.blob.core.windows.net/models/k": false,
		"azure://one.blob.core.windows.net/models": false, "s3://one/models/k": false, "": false,
	} {
		if got := a.Named(url); got != want {
			t.Errorf("%s: %v; want %v", url, got, want)
		}
	}
}
