package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/clearml"
	"clearmlserving/inference/engine/openai"
)

func migrateCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:     "migrate",
		Short:   "Move from the Python product",
		Long:    "Move from the Python product to this one, on the same serving service.",
		Example: "  clearml-serving migrate check --compose docker-compose.yml --env-file example.env",
	}, migrateCheckCommand(a))
}

func migrateCheckCommand(a *app) *cobra.Command {
	var compose []string
	var envFile string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what will differ when this product serves an existing service",
		Long: `Read a serving service of the Python product, its compose files and its file of variables,
and say what will differ here: records that cannot be read, code and models that are
missing, variables that mean something else or nothing.

Nothing is changed or started. With --env-file the server, the credentials and the
service are those of that file. The exit code is 1 when something will not be served.`,
		Example: `  clearml-serving migrate check
  clearml-serving --id 8a3f… migrate check
  clearml-serving migrate check --compose docker-compose-triton.yml --env-file example.env --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.migrateCheck(cmd.Context(), compose, envFile) },
	}
	cmd.Flags().Var(wordList(&compose), "compose", "compose files with which the service is run")
	cmd.Flags().StringVar(&envFile, "env-file", "", "file with the variables of these, as NAME=value")
	mark(cmd.Flags(), "compose", markOurs)
	mark(cmd.Flags(), "env-file", markOurs)
	return cmd
}

func (a *app) migrateCheck(ctx context.Context, compose []string, envFile string) error {
	variables := map[string]string{}
	if envFile != "" {
		var err error
		if variables, err = readEnvFile(envFile); err != nil {
			return err
		}
	}
	var found []finding
	lookUp := func(name string) (string, bool) {
		if value, ok := variables[name]; ok {
			return value, true
		}
		return a.sys.env(name)
	}
	own := map[string]string{} // of the containers of the product, by name
	for _, path := range compose {
		containers, err := readCompose(path, lookUp)
		if err != nil {
			return err
		}
		found = append(found, checkContainers(containers)...)
		for _, c := range containers {
			if c.product() != "" {
				maps.Copy(own, c.variables)
			}
		}
	}
	if envFile != "" && len(compose) == 0 {
		own = variables
	}
	found = append(found, a.checkVariables(own)...)
	a.override(serverVariables(variables))
	service, err := a.checkStoredService(ctx)
	switch {
	case errors.Is(err, clearml.ErrNotConfigured) && len(found) > 0 && a.serviceID == "":
		found = append(found, finding{"service", stateWarn, "not read: " + err.Error(), "Give --env-file with the server's address and credentials, or set their variables"})
	case err != nil:
		return err
	}
	found = append(found, service...)
	for _, f := range found {
		a.printFinding(f)
	}
	return a.concludeFindings(found, "thing", "will not be served as before")
}

// serverVariables are those of a file that say where the service is, without placeholders.
func serverVariables(variables map[string]string) map[string]string {
	found := map[string]string{}
	for _, name := range []string{"api-host", "web-host", "files-host", "api-access-key", "api-secret-key", "auth-token", "verify-cert", "service-id"} {
		for _, variable := range lookUpOption(name).variables {
			if value := variables[variable]; value != "" && !isPlaceholder(value) {
				found[variable] = value
			}
		}
	}
	return found
}

func isPlaceholder(value string) bool {
	return strings.HasPrefix(value, "<") && strings.HasSuffix(value, ">")
}

// otherVariables are those of the Python product's images that no setting of ours has, with what
// happens here instead. A name that ends with * stands for all that begin so.
var otherVariables = []struct{ name, instead string }{
	{"CLEARML_USE_GUNICORN", "there is one server, whose workers are supervised processes"},
	{"GUNICORN_EXTRA_ARGS", "there is no gunicorn"},
	{"UVICORN_*", "there is no uvicorn"},
	{"WEB_CONCURRENCY", "CLEARML_SERVING_NUM_PROCESS sets the worker processes of each endpoint"},
	{"CLEARML_DEFAULT_BASE_SERVE_URL", "send_request asks other endpoints inside of the service and needs no address; user code still finds the variable"},
	{"CLEARML_BKG_THREAD_REPORT", "reports never hold up a request"},
	{"CLEARML_SERVING_RESTART_ON_FAILURE", "workers are replaced by themselves; the container's restart policy is for the rest"},
	{"CLEARML_SERVING_DEV_CUDAEXCEPTION", "a worker without memory on its GPU is replaced by itself"},
	{"CLEARML_ENABLE_ENDPOINT_TELEMETRY", "instances report what they serve in their status"},
	{"CLEARML_SERVING_AIO_RPC_*", "errors that clients repeat are logged once, then counted"},
	{"CLEARML_GRPC_*", "requests to Triton may be as large as gRPC can send, answers as CLEARML_SERVING_MAX_BODY says; connections are tested and made again by themselves"},
	{"CLEARML_TRITON_*", "the role triton has no flag of this name"},
	{"SERVING_PORT", "the addresses of an instance are those at which it listens"},
}

// checkVariables says what variables of the product's containers mean here.
func (a *app) checkVariables(variables map[string]string) []finding {
	var same []string
	var found []finding
	for _, name := range keys(variables) {
		value := variables[name]
		option := slices.IndexFunc(optionTable, func(o option) bool { return slices.Contains(o.variables, name) })
		other := slices.IndexFunc(otherVariables, func(o struct{ name, instead string }) bool {
			prefix, many := strings.CutSuffix(o.name, "*")
			return name == o.name || (many && strings.HasPrefix(name, prefix))
		})
		switch {
		case isPlaceholder(value):
			found = append(found, finding{"variable", stateFail, fmt.Sprintf("%s is still the placeholder %s", name, value), "Put the value there"})
		case option >= 0 || slices.Contains(workerVariables, name) || slices.Contains(networkVariables, name), name == openai.EngineArgsVariable:
			same = append(same, name)
		case other >= 0 && value != "":
			found = append(found, finding{"variable", stateWarn, fmt.Sprintf("%s has no effect: %s", name, otherVariables[other].instead), ""})
		case other >= 0:
		case value != "":
			found = append(found, finding{"variable", stateWarn, name + " does not reach user code by itself", "If user code reads it: CLEARML_SERVING_WORKER_ENV with its name, or several with commas between"})
		}
	}
	if len(same) > 0 {
		found = append([]finding{{"variable", stateOK, "the same here: " + strings.Join(same, ", "), ""}}, found...)
	}
	return found
}
