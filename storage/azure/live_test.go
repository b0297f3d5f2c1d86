package azure_test

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"clearmlserving/storage"
	"clearmlserving/storage/azure"
	"clearmlserving/storage/storagetest"
)

// The documented account of Azure's emulators.
const (
	emulated    = "devstoreaccount1"
	emulatedKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// live returns the account of a real server, which "make e2e-storage" starts, and the
// address of a new container.
func live(t *testing.T) (azure.Account, string) {
	t.Helper()
	endpoint := os.Getenv("CLEARML_SERVING_TEST_AZURE")
	if endpoint == "" {
		t.Skip("no server: make e2e-storage runs this against a real one (CLEARML_SERVING_TEST_AZURE)")
	}
	account := azure.Account{Name: emulated, Key: emulatedKey, Endpoint: endpoint + "/" + emulated, From: "the test"}
	name := "test-" + strings.ToLower(rand.Text())
	key, err := container.NewSharedKeyCredential(emulated, emulatedKey)
	if err != nil {
		t.Fatal(err)
	}
	client, err := container.NewClientWithSharedKeyCredential(account.Endpoint+"/"+name, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return account, "azure://" + emulated + ".blob.core.windows.net/" + name + "/"
}

func newAdapter(t *testing.T, accounts ...azure.Account) *azure.Adapter {
	t.Helper()
	a := azure.New(azure.Options{Accounts: accounts})
	return a
}

func TestRealServerKeepsTheContract(t *testing.T) {
	account, place := live(t)
	adapter := newAdapter(t, account)
	storagetest.Run(t, func(*testing.T) storagetest.Place {
		folder := place + rand.Text() + "/"
		return storagetest.Place{Adapter: adapter, Ranges: true, URL: func(name string) string { return folder + name }}
	})
}

func TestRealServerSaysWhatIsWrong(t *testing.T) {
	account, place := live(t)
	wrongKey := account
	wrongKey.Key = "YW5vdGhlcg=="
	root := "azure://" + emulated + ".blob.core.windows.net/"
	for name, c := range map[string]struct {
		accounts []azure.Account
		url      string
		is       error
		says     []string
	}{
		"no such container": {[]azure.Account{account}, root + "no-such-container/k", storage.ErrNotExist, []string{`container "no-such-container" does not exist`}},
		"no such blob":      {[]azure.Account{account}, place + "a/k", storage.ErrNotExist, []string{"/a/k"}},
		"wrong key":         {[]azure.Account{wrongKey}, place + "k", storage.ErrDenied, []string{"the test", "key"}},
		"no account":        {nil, place + "k", storage.ErrDenied, []string{"sdk.azure.storage.containers", "AZURE_STORAGE_KEY"}},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Refused(t, newAdapter(t, c.accounts...), c.url, c.is, c.says...)
		})
	}
}

func TestCutUploadsLeaveNothing(t *testing.T) {
	account, place := live(t)
	storagetest.CutUploads(t, newAdapter(t, account), place)
}

func TestListedFilesAreThoseBelowThePrefix(t *testing.T) {
	account, place := live(t)
	storagetest.Lists(t, newAdapter(t, account), place)
}
