package storage_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"clearmlserving/storage"
	"clearmlserving/storage/file"
	"clearmlserving/storage/https"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only read from
	model := filepath.Join(dir, "model.pkl")
	if err := os.WriteFile(model, []byte("a model"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	web := https.New(https.Options{})
	cache, err := storage.NewCache(storage.CacheOptions{
		Dir:      filepath.Join(dir, "cache"),
		Adapters: storage.Adapters{"file": file.Adapter{}, "http": web, "https": web},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	handle, err := cache.Fetch(context.Background(), storage.Item{URL: "file://" + model}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer handle.Release()
	fmt.Println(filepath.Base(handle.Path), handle.SHA256[:8], handle.Size)
	// Output: model.pkl 97ff8a35 7
}
