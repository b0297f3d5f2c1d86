package places

import (
	"cmp"
	"fmt"
	"strings"

	"clearmlserving/hocon"
	"clearmlserving/storage"
	"clearmlserving/storage/azure"
	"clearmlserving/storage/gs"
	"clearmlserving/storage/s3"
)

// variable is the first that is set and not blank.
func (c Config) variable(names ...string) string {
	for _, name := range names {
		if v, _ := c.env(name); strings.TrimSpace(v) != "" {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// entry is one object of the file with its name.
type entry struct {
	*hocon.Object
	name string
}

func (e entry) text(key string) string {
	v, _ := e.Text(key)
	return strings.TrimSpace(v)
}

// on reads a switch; absent ones and null have the default.
func (e entry) on(key string, otherwise bool) bool {
	switch text := strings.ToLower(e.text(key)); {
	case truth(text):
		return true
	case text == "false" || text == "no" || text == "n" || text == "f" || text == "0" || text == "off":
		return false
	}
	return otherwise
}

func (c Config) entries(list string) []entry {
	var all []entry
	for i, item := range c.file.List(list) {
		if o, ok := item.(*hocon.Object); ok {
			all = append(all, entry{o, fmt.Sprintf("%s[%d] in clearml.conf", list, i)})
		}
	}
	return all
}

func (c Config) s3() s3.Options {
	const section = "sdk.aws.s3"
	root := entry{c.file.Object(section), section + " in clearml.conf"}
	access := c.s3Access(root)
	if access.Key == "" {
		if access.Key = c.variable("AWS_ACCESS_KEY_ID"); access.Key != "" {
			access.From = "AWS_ACCESS_KEY_ID"
		}
	}
	access.Secret = cmp.Or(access.Secret, c.variable("AWS_SECRET_ACCESS_KEY"))
	access.Token = cmp.Or(access.Token, c.variable("AWS_SESSION_TOKEN"))
	access.Region = cmp.Or(access.Region, c.variable("AWS_DEFAULT_REGION"))
	access.Profile = cmp.Or(access.Profile, c.variable("AWS_PROFILE"))
	o := s3.Options{Default: access, Endpoint: c.variable("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")}
	for _, e := range c.entries(section + ".credentials") {
		own := c.s3Access(e)
		if (own.Key == "" || own.Secret == "") && !own.Chain && own.Profile == "" {
			continue // as in the SDK, an entry without credentials does not count
		}
		name := strings.Trim(strings.Trim(e.text("bucket"), `"'`), "/")
		if folder := strings.Trim(e.text("subdir"), "/"); folder != "" {
			name += "/" + folder
		}
		o.Buckets = append(o.Buckets, s3.Bucket{Host: e.text("host"), Name: name, Access: own})
	}
	return o
}

// s3Access reads the keys that entries and the top level have in common.
func (c Config) s3Access(e entry) s3.Access {
	access := s3.Access{
		Key: e.text("key"), Secret: e.text("secret"), Token: e.text("token"), Region: e.text("region"), Profile: e.text("profile"),
		Chain: e.on("use_credentials_chain", false), Plain: !e.on("secure", true), OneStream: !e.on("multipart", true), From: e.name,
	}
	switch verify := e.text("verify"); {
	case !e.on("verify", true):
		access.Insecure = true
	case verify != "" && !e.on("verify", false):
		access.CAFile = verify
	default:
		access.CAFile = c.variable("AWS_CA_BUNDLE")
	}
	access.Header = map[string]string{}
	if acl := e.text("acl"); acl != "" {
		access.Header["x-amz-acl"] = acl
	}
	extra := entry{e.Object.Object("extra_args"), ""}
	for key, field := range map[string]string{
		"ACL": "x-amz-acl", "StorageClass": "x-amz-storage-class", "ServerSideEncryption": "x-amz-server-side-encryption",
		"SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id", "RequestPayer": "x-amz-request-payer", "CacheControl": "Cache-Control",
	} {
		if value := extra.text(key); value != "" {
			access.Header[field] = value
		}
	}
	return access
}

func (c Config) gs() gs.Options {
	const section = "sdk.google.storage"
	root := entry{c.file.Object(section), section + " in clearml.conf"}
	access := gs.Access{Credentials: root.text("credentials_json"), From: section + ".credentials_json in clearml.conf"}
	if access.Credentials == "" {
		access = gs.Access{Credentials: c.variable("GOOGLE_APPLICATION_CREDENTIALS"), From: "GOOGLE_APPLICATION_CREDENTIALS"}
	}
	o := gs.Options{Default: access, Endpoint: c.variable("STORAGE_EMULATOR_HOST")}
	for _, e := range c.entries(section + ".credentials") {
		own := gs.Access{Credentials: e.text("credentials_json"), From: e.name}
		if own.Credentials == "" {
			own = access
		}
		if name := strings.Trim(e.text("bucket"), "/"); name != "" {
			o.Buckets = append(o.Buckets, gs.Bucket{Name: name, Folder: e.text("subdir"), Access: own})
		}
	}
	return o
}

func (c Config) azure() azure.Options {
	const section = "sdk.azure.storage"
	emulator, endpoint := c.connectionString()
	var o azure.Options
	for _, e := range c.entries(section + ".containers") {
		account := azure.Account{
			Name: e.text("account_name"), Key: e.text("account_key"), Container: e.text("container_name"),
			Machine: e.on("use_default_credential", false), From: e.name,
		}
		if account.Name == emulator.Name {
			account.Endpoint = endpoint
		}
		o.Accounts = append(o.Accounts, account)
	}
	if name := c.variable("AZURE_STORAGE_ACCOUNT"); name != "" {
		machine := truth(c.variable("CLEARML_AZURE_STORAGE_USE_DEFAULT_CREDENTIAL"))
		if key := c.variable("AZURE_STORAGE_KEY"); key != "" || machine {
			account := azure.Account{Name: name, Key: key, Machine: machine, From: "AZURE_STORAGE_ACCOUNT"}
			if name == emulator.Name {
				account.Endpoint = endpoint
			}
			o.Accounts = append(o.Accounts, account)
		}
	}
	if emulator.Key != "" {
		o.Accounts = append(o.Accounts, emulator)
	}
	return o
}

// truth reads a switch that is a text.
func truth(text string) bool {
	switch strings.ToLower(text) {
	case "true", "yes", "y", "t", "1", "on":
		return true
	}
	return false
}

// connectionString reads the variable that configures an account, or an
// emulator, for Azure's tools.
func (c Config) connectionString() (account azure.Account, endpoint string) {
	fields := map[string]string{}
	for part := range strings.SplitSeq(c.variable("AZURE_STORAGE_CONNECTION_STRING"), ";") {
		if key, value, found := strings.Cut(part, "="); found {
			fields[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return azure.Account{
		Name: fields["accountname"], Key: fields["accountkey"], Endpoint: fields["blobendpoint"], From: "AZURE_STORAGE_CONNECTION_STRING",
	}, fields["blobendpoint"]
}

// Rewrites are the rules of sdk.storage.path_substitution.
func (c Config) Rewrites() []storage.Rewrite {
	var rules []storage.Rewrite
	for _, e := range c.entries("sdk.storage.path_substitution") {
		if from, to := e.text("registered_prefix"), e.text("local_prefix"); from != "" && to != "" {
			rules = append(rules, storage.Rewrite{From: from, To: to, Slashes: e.on("replace_windows_sep", false)})
		}
	}
	return rules
}
