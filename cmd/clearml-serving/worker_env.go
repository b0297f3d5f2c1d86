package main

import (
	"slices"
	"strings"

	"clearmlserving/clearml"
	"clearmlserving/outbound"
)

// workerVariables are the variables that user code is given, beside networkVariables
// and those that CLEARML_SERVING_WORKER_ENV names. Variables of the service that are not listed, such
// as its keys and its database, do not reach user code.
var workerVariables = slices.Concat(
	// The system: programs, folders, language, time zone.
	[]string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"},
	// Python and libraries.
	[]string{"VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_CACHE"},
	// S3, as boto reads them.
	[]string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
		"AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
	},
	// Google Storage.
	[]string{"GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"},
	// Azure Storage.
	[]string{
		"AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
		"AZURE_FEDERATED_TOKEN_FILE", "CLEARML_AZURE_STORAGE_USE_DEFAULT_CREDENTIAL",
	},
	// The SDK and code written for the original. The addresses and keys of the SDK are
	// those of the service's own connection, see workerEnv.
	[]string{"CLEARML_CONFIG_FILE", "CLEARML_CACHE_DIR", "CLEARML_SERVING_TASK_ID", "CLEARML_DEFAULT_BASE_SERVE_URL", "CLEARML_LOG_LEVEL"},
)

// workerEnv is the environment of user code: the variables that are allowed, and the
// connection of the service for the SDK.
func (a *app) workerEnv(config clearml.Config) []string {
	further := strings.FieldsFunc(a.text("worker-env"), func(r rune) bool { return r == ',' || r == ' ' })
	env := a.passed(workerVariables, networkVariables, further)
	sdk := config.Variables()
	for _, name := range keys(sdk) {
		env = append(env, name+"="+sdk[name])
	}
	unproxied, value := outbound.Unproxied(a.sys.env, config.API.Value, config.Files.Value, config.Web.Value)
	for _, name := range unproxied {
		env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		env = append(env, name+"="+value)
	}
	return env
}
