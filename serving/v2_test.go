package serving_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"clearmlserving/serving"
)

func TestSettingsOfTheEngineV2(t *testing.T) {
	v, err := serving.V2Of(serving.EngineV2, map[string]any{
		"address": []any{"a:1", `"b:2"`}, "model": "m", "version": int64(3), "protocol": "HTTP", "path": "/x/y/", "tls": true, "tls_ca": "/ca.pem",
		"key_variable": "KEY", "compression": "yes", "probe_timeout": "5",
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(v.Addresses, []string{"a:1", "b:2"}) || v.Model != "m" || v.Version != "3" || v.Protocol != serving.ProtocolREST || v.Path != "/x/y" ||
		!v.TLS || v.CA != "/ca.pem" || v.KeyVariable != "KEY" || !v.Compression || v.Stream || v.ProbeTimeout != 5*time.Second {
		t.Errorf("%+v", v)
	}
	if v, err = serving.V2Of(serving.EngineV2, `address: "a:1" model: "m"`); err != nil || v.Protocol != serving.ProtocolGRPC || v.Model != "m" {
		t.Errorf("of a text: %+v, %v", v, err)
	}
	if v, err = serving.V2Of(serving.EngineCustom, map[string]any{"address": 7}); err != nil || v.Addresses != nil {
		t.Errorf("of another engine: %+v, %v", v, err)
	}
	for name, aux := range map[string]any{
		"address": map[string]any{"address": "host:99999"}, "path": map[string]any{"address": "a:1", "path": "x"}, "model": map[string]any{"address": "a:1", "model": ""},
		"probe_timeout": map[string]any{"address": "a:1", "probe_timeout": 1000}, "compression": map[string]any{"address": "a:1", "compression": 7},
	} {
		_, err := serving.V2Of(serving.EngineV2, aux)
		if failed, ok := errors.AsType[*serving.FieldError](err); !ok || failed.Field != "auxiliary_cfg."+name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who may configure an endpoint must not learn the credentials of the instance by an address of theirs.
func TestCredentialsOfTheInstanceAreNoKeysOfV2Servers(t *testing.T) {
	for _, name := range []string{"CLEARML_API_SECRET_KEY", "aws_secret_access_key", "AZURE_STORAGE_KEY", "GOOGLE_APPLICATION_CREDENTIALS"} {
		_, err := serving.V2Of(serving.EngineV2, map[string]any{"address": "a:1", "key_variable": name})
		if failed, ok := errors.AsType[*serving.FieldError](err); !ok || failed.Field != "auxiliary_cfg.key_variable" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"gpu1": "gpu1:8001", "gpu1:9000, gpu2": "gpu1:9000 gpu2:8001", "grpc://h:1": "h:1", "[::1]:7": "[::1]:7", "::1": "[::1]:8001", "": "", " ": "", `"h"`: "h:8001", "dns:///h:2": "h:2",
	} {
		got, err := serving.Addresses(text, 8001)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"h:0", "h:70000", "h:x", "http://h:1/path", "user@h:1", strings.Repeat("h,", 100)} {
		if got, err := serving.Addresses(text, 8001); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestTritonsNamesAndSettings(t *testing.T) {
	if got := serving.TritonModel("a/b/1"); got != "a_b_1" {
		t.Error(got)
	}
	for _, aux := range []any{map[string]any{"model_transaction_policy": map[string]any{"decoupled": true}}, `model_transaction_policy { decoupled: true }`, map[string]any{"model_transaction_policy": map[string]any{"decoupled": "True"}}} {
		if !serving.TritonDecoupled(aux) {
			t.Errorf("%v", aux)
		}
	}
	for _, aux := range []any{nil, "", map[string]any{}, map[string]any{"model_transaction_policy": map[string]any{"decoupled": "no"}}, "{{"} {
		if serving.TritonDecoupled(aux) {
			t.Errorf("%v", aux)
		}
	}
	for text, want := range map[string]bool{"": true, "True": true, "0": false, "false": false, "1": true} {
		if got, err := (serving.Parameters{TritonGRPCCompression: text}).TritonCompression(true); err != nil || got != want {
			t.Errorf("%q: %t, %v", text, got, err)
		}
	}
	if _, err := (serving.Parameters{TritonGRPCCompression: "gzip"}).TritonCompression(false); err == nil || !strings.Contains(err.Error(), "triton_grpc_compression") {
		t.Error(err)
	}
	p := serving.Parameters{TritonGRPCServer: "h:1", KafkaServiceServer: "k"}
	if p.For(serving.EngineTriton) != (serving.Parameters{TritonGRPCServer: "h:1"}) || p.For(serving.EngineSklearn) != (serving.Parameters{}) {
		t.Errorf("%+v", p)
	}
}
