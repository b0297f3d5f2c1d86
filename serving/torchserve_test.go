package serving

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTheSettingsOfTorchServeHaveItsNames(t *testing.T) {
	got, err := TorchServeOf(EngineTorchServe, map[string]any{
		"min_workers": "2", "max_workers": 4, "batch_size": "8", "max_batch_delay": "5", "response_timeout": "30", "protocol": `"grpc"`,
		"address": "10.0.0.1:8080, 10.0.0.2:8080", "grpc_address": []any{"10.0.0.1:7070", "https://10.0.0.2:7070"}, "management_address": "https://10.0.0.1:8081,10.0.0.2:8081",
	})
	want := TorchServe{
		MinWorkers: 2, MaxWorkers: 4, BatchSize: 8, MaxBatchDelay: 5 * time.Millisecond, ResponseTimeout: 30 * time.Second, Protocol: ProtocolGRPC,
		Addresses: []string{"http://10.0.0.1:8080", "http://10.0.0.2:8080"}, GRPC: []string{"10.0.0.1:7070", "https://10.0.0.2:7070"},
		Management: []string{"https://10.0.0.1:8081", "http://10.0.0.2:8081"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, tc := range []struct{ setting, value, says string }{
		{"min_workers", "-1", "out of range"},
		{"batch_size", "0", "out of range"},
		{"max_batch_delay", "soon", "not a whole number"},
		{"protocol", "http", "neither rest nor grpc"},
		{"address", "somewhere", "is no address"},
		{"address", "127.0.0.1:8080/x", "is no address"},
		{"address", "127.0.0.1:8080", "management_address is missing"},
		{"handler", "../x", "no name that TorchServe accepts"},
		{"model", "m", "give its address"},
		{"version", "1", "give its model"},
	} {
		_, err := TorchServeOf(EngineTorchServe, map[string]any{tc.setting: tc.value})
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s=%s: %v, want %q", tc.setting, tc.value, err, tc.says)
		}
	}
	if _, err := TorchServeOf(EngineTorchServe, map[string]any{"min_workers": 3, "max_workers": 2}); err == nil {
		t.Error("fewer at most than at least are accepted")
	}
	if _, err := TorchServeOf(EngineSklearn, map[string]any{"min_workers": "x"}); err != nil {
		t.Errorf("other engines have no such setting: %v", err)
	}
}

func FuzzTorchServeAddress(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:8080", "https://a:1,b:2", "[::1]:8080", "http://u:p@h:1", ":1", "a:b:c", "%:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		addresses, err := torchAddresses("address", text, true)
		if err == nil && len(addresses) == 0 {
			t.Errorf("%q: neither an address nor an error", text)
		}
		for _, a := range addresses {
			if strings.ContainsAny(a, " ,\n\"'") || !strings.Contains(a, "://") {
				t.Errorf("%q gives the address %q", text, a)
			}
		}
	})
}
