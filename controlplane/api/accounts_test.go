package api_test

import (
	"fmt"
	"testing"

	"clearmlserving/controlplane/api"
)

// pair makes credentials with what the request says beside the label.
func (p *plane) pair(t *testing.T, more string) api.Credentials {
	t.Helper()
	made, _ := p.ok(t, "auth.create_credentials", `{"label":"made"`+more+`}`)["credentials"].(map[string]any)
	c := api.Credentials{AccessKey: fmt.Sprint(made["access_key"]), SecretKey: fmt.Sprint(made["secret_key"])}
	if len(c.SecretKey) < 50 {
		t.Fatalf("credentials: %v", made)
	}
	return c
}

func TestCredentialsLimitedToReadingOnlyRead(t *testing.T) {
	p := newPlane(t)
	reader := p.pair(t, `,"read_only":true`)
	for _, proof := range []string{basic(reader), "Bearer " + p.do(t, "auth.login", "", "Authorization", basic(reader)).Data["token"].(string)} {
		for call, want := range map[string]string{
			"tasks.get_all": "200/0", "tasks.create": "403/21", "auth.create_credentials": "403/21", "auth.create_user": "403/20",
		} {
			if got := p.do(t, call, `{"name":"a task","type":"training"}`, "Authorization", proof).code(); got != want {
				t.Errorf("%s: %s, want %s", call, got, want)
			}
		}
	}
}

func TestCredentialsLimitedToAServiceWriteOnlyThere(t *testing.T) {
	p := newPlane(t)
	task := func(more string) string {
		return p.ok(t, "tasks.create", `{"name":"a task","type":"service"`+more+`}`)["id"].(string)
	}
	mine, other := task(""), task("")
	model := p.ok(t, "models.create", `{"name":"model","uri":"u"}`)["id"].(string)
	limited := p.pair(t, `,"service":"`+mine+`"`)
	token := "Bearer " + p.do(t, "auth.login", "", "Authorization", basic(limited)).Data["token"].(string)
	instance, _ := p.do(t, "tasks.create", `{"name":"instance","type":"inference","parent":"`+mine+`"}`, "Authorization", token).Data["id"].(string)
	for _, c := range []struct{ call, body, want string }{
		{"tasks.get_by_id", `{"task":"` + other + `"}`, "200/0"},
		{"tasks.edit_configuration", `{"task":"` + mine + `","configuration":[{"name":"endpoints","value":"{}"}]}`, "200/0"},
		{"tasks.ping", `{"task":"` + mine + `"}`, "200/0"},
		{"tasks.started", `{"task":"` + instance + `"}`, "200/0"},
		{"events.add", `{"type":"log","task":"` + instance + `","msg":"m"}`, "200/0"},
		{"serving.register_container", `{"container_id":"c","endpoint_name":"e","model_name":"m"}`, "200/0"},
		{"tasks.edit_configuration", `{"task":"` + other + `","configuration":[{"name":"endpoints","value":"{}"}]}`, "403/21"},
		{"tasks.edit", `{"task":"` + other + `","parent":"` + mine + `","force":true}`, "403/21"},
		{"tasks.ping", `{"task":"` + other + `"}`, "403/21"},
		{"tasks.create", `{"name":"another","type":"training"}`, "403/21"},
		{"tasks.delete", `{"task":"` + mine + `","force":true}`, "403/21"},
		{"tasks.clone", `{"task":"` + other + `"}`, "403/21"},
		{"models.edit", `{"model":"` + model + `","name":"changed"}`, "403/21"},
		{"models.delete", `{"model":"` + model + `"}`, "403/21"},
		{"projects.create", `{"name":"project"}`, "403/21"},
		{"events.add", `{"type":"log","task":"` + other + `","msg":"m"}`, "400/131"},
		{"auth.create_credentials", `{}`, "403/21"},
		{"auth.revoke_credentials", `{"access_key":"` + p.creds.AccessKey + `"}`, "403/21"},
		{"auth.create_user", `{"name":"somebody"}`, "403/20"},
	} {
		if got := p.do(t, c.call, c.body, "Authorization", token); got.code() != c.want {
			t.Errorf("%s %s: %s %s, want %s", c.call, c.body, got.code(), got.Meta.ResultMsg, c.want)
		}
	}
	for body, want := range map[string]string{`{"service":"none"}`: "400/101", `{"service":"` + mine + `","read_only":true}`: "400/12"} {
		if got := p.do(t, "auth.create_credentials", body, "Authorization", basic(p.creds)).code(); got != want {
			t.Errorf("credentials with %s: %s, want %s", body, got, want)
		}
	}
}

func TestAdminsKeepUsersAndTheirCredentials(t *testing.T) {
	p := newPlane(t)
	ann := p.ok(t, "auth.create_user", `{"name":"ann"}`)["id"].(string)
	hers := p.pair(t, `,"user":"`+ann+`"`)
	asAnn := func(call, body string) answered { return p.do(t, call, body, "Authorization", basic(hers)) }
	user, _ := asAnn("users.get_current_user", "").Data["user"].(map[string]any)
	if user["id"] != ann || user["role"] != "user" {
		t.Errorf("the pair is for %v", user)
	}
	for _, c := range []struct{ call, body, want string }{
		{"auth.create_user", `{"name":"bob"}`, "403/20"},
		{"auth.delete_user", `{"user":"` + ann + `"}`, "403/20"},
		{"auth.create_credentials", `{"user":"` + user["id"].(string) + `"}`, "200/0"},
		{"auth.create_credentials", `{"user":"somebody else"}`, "403/20"},
		{"auth.revoke_credentials", `{"access_key":"` + p.creds.AccessKey + `"}`, "400/75"},
	} {
		if got := asAnn(c.call, c.body).code(); got != c.want {
			t.Errorf("a user's %s: %s, want %s", c.call, got, c.want)
		}
	}
	list, _ := p.ok(t, "auth.get_credentials", `{"user":"`+ann+`"}`)["credentials"].([]any)
	if len(list) != 2 {
		t.Errorf("the admin sees %d pairs of hers, want 2", len(list))
	}
	for body, want := range map[string]string{`{"name":"ann"}`: "400/801", `{"name":"x"}`: "400/800", `{"name":"carl","role":"root"}`: "400/12"} {
		if got := p.do(t, "auth.create_user", body, "Authorization", basic(p.creds)).code(); got != want {
			t.Errorf("create_user %s: %s, want %s", body, got, want)
		}
	}
	p.ok(t, "auth.edit_user", `{"user":"`+ann+`","role":"guest","name":"anna"}`)
	if got := asAnn("tasks.create", `{"name":"a task","type":"training"}`).code(); got != "403/21" {
		t.Errorf("as a guest: %s, want 403/21", got)
	}
	p.ok(t, "auth.delete_user", `{"user":"`+ann+`"}`)
	if got := asAnn("tasks.get_all", `{}`).code(); got != "401/22" {
		t.Errorf("after she was deleted: %s, want 401/22", got)
	}
	self, _ := p.ok(t, "users.get_current_user", "")["user"].(map[string]any)
	if got := p.do(t, "auth.delete_user", fmt.Sprintf(`{"user":%q}`, self["id"]), "Authorization", basic(p.creds)).code(); got != "400/0" {
		t.Errorf("deleting oneself: %s", got)
	}
}
