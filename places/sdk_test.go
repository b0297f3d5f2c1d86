package places

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"clearmlserving/hocon"
	"clearmlserving/outbound"
	"clearmlserving/storage"
	"clearmlserving/storage/azure"
	"clearmlserving/storage/gs"
	"clearmlserving/storage/s3"
)

// conf reads a piece of clearml.conf beside some variables.
func conf(t *testing.T, text string, variables map[string]string) Config {
	t.Helper()
	file, err := hocon.Parse([]byte(text), hocon.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return Config{file: file, env: func(name string) (string, bool) { v, ok := variables[name]; return v, ok }}
}

func TestS3IsConfiguredAsTheSDKReadsIt(t *testing.T) {
	c := conf(t, `sdk { aws { s3 {
		region: "eu-central-1", key: "", secret: ""
		credentials: [
			{ bucket: "models/", key: "k1", secret: "s1", acl: "private", extra_args: { StorageClass: "STANDARD_IA" } },
			{ host: "minio:9000", key: k2, secret: s2, multipart: false, secure: false, verify: false },
			{ bucket: "no-credentials" },
			{ bucket: "chained", use_credentials_chain: true, verify: "/ca.pem" },
		]
	} } }`, map[string]string{"AWS_ACCESS_KEY_ID": "k0", "AWS_SECRET_ACCESS_KEY": "s0", "AWS_DEFAULT_REGION": "us-west-2", "AWS_PROFILE": " p "})
	section := "sdk.aws.s3.credentials"
	want := s3.Options{
		Default: s3.Access{Key: "k0", Secret: "s0", Region: "eu-central-1", Profile: "p", From: "AWS_ACCESS_KEY_ID", Header: map[string]string{}},
		Buckets: []s3.Bucket{
			{Name: "models", Access: s3.Access{Key: "k1", Secret: "s1", From: section + "[0] in clearml.conf", Header: map[string]string{"x-amz-acl": "private", "x-amz-storage-class": "STANDARD_IA"}}},
			{Host: "minio:9000", Access: s3.Access{Key: "k2", Secret: "s2", OneStream: true, Plain: true, Insecure: true, From: section + "[1] in clearml.conf", Header: map[string]string{}}},
			{Name: "chained", Access: s3.Access{Chain: true, CAFile: "/ca.pem", From: section + "[3] in clearml.conf", Header: map[string]string{}}},
		},
	}
	if diff := cmp.Diff(want, c.s3(), cmpopts.IgnoreTypes(outbound.Network{})); diff != "" {
		t.Error(diff)
	}
	fileWins := conf(t, `sdk.aws.s3 { key: "file", secret: "file" }`, map[string]string{"AWS_ACCESS_KEY_ID": "k0", "AWS_SECRET_ACCESS_KEY": "s0"}).s3().Default
	if fileWins.Key != "file" || fileWins.Secret != "file" {
		t.Errorf("key %q of the environment wins over the file", fileWins.Key)
	}
}

func TestGoogleStorageIsConfiguredAsTheSDKReadsIt(t *testing.T) {
	c := conf(t, `sdk { google.storage { credentials = [ { bucket: "b", subdir: "x", credentials_json: "/b.json" }, { bucket: "c" } ] } }`,
		map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": "/env.json", "STORAGE_EMULATOR_HOST": "127.0.0.1:9"})
	env := gs.Access{Credentials: "/env.json", From: "GOOGLE_APPLICATION_CREDENTIALS"}
	want := gs.Options{Default: env, Endpoint: "127.0.0.1:9", Buckets: []gs.Bucket{
		{Name: "b", Folder: "x", Access: gs.Access{Credentials: "/b.json", From: "sdk.google.storage.credentials[0] in clearml.conf"}},
		{Name: "c", Access: env},
	}}
	if diff := cmp.Diff(want, c.gs()); diff != "" {
		t.Error(diff)
	}
}

func TestAzureIsConfiguredAsTheSDKReadsIt(t *testing.T) {
	c := conf(t, `sdk.azure.storage { containers: [
		{ account_name: "one", account_key: "k1", container_name: "c" },
		{ account_name: "two", use_default_credential: true },
	] }`, map[string]string{
		"AZURE_STORAGE_ACCOUNT": "three", "AZURE_STORAGE_KEY": "k3",
		"AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=http;AccountName=three;AccountKey=k4==;BlobEndpoint=http://127.0.0.1:9/three;",
	})
	const section, emulator = "sdk.azure.storage.containers", "http://127.0.0.1:9/three"
	want := azure.Options{Accounts: []azure.Account{
		{Name: "one", Key: "k1", Container: "c", From: section + "[0] in clearml.conf"},
		{Name: "two", Machine: true, From: section + "[1] in clearml.conf"},
		{Name: "three", Key: "k3", Endpoint: emulator, From: "AZURE_STORAGE_ACCOUNT"},
		{Name: "three", Key: "k4==", Endpoint: emulator, From: "AZURE_STORAGE_CONNECTION_STRING"},
	}}
	if diff := cmp.Diff(want, c.azure()); diff != "" {
		t.Error(diff)
	}
}

func TestSubstitutionsOfPathsAreRewrites(t *testing.T) {
	c := conf(t, `sdk.storage.path_substitution = [ { registered_prefix = "http://fileserver:8081", local_prefix = "http://localhost:8081" } ]`, nil)
	want := []storage.Rewrite{{From: "http://fileserver:8081", To: "http://localhost:8081"}}
	if diff := cmp.Diff(want, c.Rewrites()); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyAddressesOfWebServersAreQuoted(t *testing.T) {
	for destination, want := range map[string]string{
		"http://files:8081/":        "http://files:8081/a%20b/%23.pkl",
		"s3://bucket/x/":            "s3://bucket/x/a b/#.pkl",
		"gs://bucket":               "gs://bucket/a b/#.pkl",
		"azure://a.blob.x/c":        "azure://a.blob.x/c/a b/#.pkl",
		"file:///models":            "file:///models/a b/#.pkl",
		"/models/":                  "file:///models/a b/#.pkl",
		"s3://host:9000/bucket/dir": "s3://host:9000/bucket/dir/a b/#.pkl",
	} {
		if got := URL(destination, "a b/#.pkl"); got != want {
			t.Errorf("below %s: %s, want %s", destination, got, want)
		}
	}
}
