package serving

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestSettingsOfLanguageModels(t *testing.T) {
	o, err := OpenAIOf(EngineOpenAI, map[string]any{
		"address": []any{"http://a:8000/v1/", `"https://b/openai/v1"`, "c:9", "http://a:8000"}, "key_env": "SOME_KEY", "model": `"m"`, "fallback": "/other/1/",
		"responses": "engine", "images": "note", "stall": "5",
	})
	if err != nil || !slices.Equal(o.Addresses, []string{"http://a:8000", "https://b/openai", "http://c:9"}) || o.KeyEnv != "SOME_KEY" || o.Model != "m" || o.Fallback != "other/1" ||
		!o.OwnResponses || !o.NoteImages || o.Stall != 5*time.Second {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = OpenAIOf(EngineVLLM, map[string]any{"command": `"serve --a x,y <model>"`, "engine_args": map[string]any{"max_model_len": "8192"}})
	if err != nil || !slices.Equal(o.Command, []string{"serve", "--a", "x,y", "<model>"}) || o.EngineArgs["max_model_len"] != "8192" || o.Stall != defaultStall*time.Second {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err = OpenAIOf(EngineVLLM, nil); err != nil {
		t.Error(err)
	}
	if o, err = OpenAIOf(EngineCustom, map[string]any{"address": "::"}); err != nil || o.Addresses != nil {
		t.Errorf("%+v, %v", o, err)
	}
	const good = "http://a/v1"
	for field, aux := range map[string]map[string]any{
		"auxiliary_cfg.address":     {},
		"auxiliary_cfg.key_env":     {"address": good, "key_env": "sk-1234 56"},
		"auxiliary_cfg.fallback":    {"address": good, "fallback": "a//b"},
		"auxiliary_cfg.responses":   {"address": good, "responses": "maybe"},
		"auxiliary_cfg.images":      {"address": good, "images": "draw"},
		"auxiliary_cfg.stall":       {"address": good, "stall": "0"},
		"auxiliary_cfg.command":     {"address": good, "command": "x"},
		"auxiliary_cfg.engine_args": {"address": good, "engine_args": "x"},
	} {
		_, err := OpenAIOf(EngineOpenAI, aux)
		if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%v: %v", aux, err)
		}
	}
	for _, address := range []string{"ftp://a", "http://", "http://user:secret@a", "http://a?x=1", "http://a#b", "http://a b%"} {
		_, err := OpenAIOf(EngineOpenAI, map[string]any{"address": []any{address}})
		if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != "auxiliary_cfg.address" || wrong.Value == `"`+address+`"` && address == "http://user:secret@a" {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, name := range []string{"CLEARML_API_SECRET_KEY", "aws_secret_access_key", "1A"} {
		if _, err := OpenAIOf(EngineOpenAI, map[string]any{"address": good, "key_env": name}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := OpenAIOf(EngineVLLM, map[string]any{"address": good}); err == nil {
		t.Error("vllm has an address")
	}
}
