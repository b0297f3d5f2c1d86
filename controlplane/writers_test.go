package controlplane_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"clearmlserving/controlplane"
	"clearmlserving/controlplane/store/postgres/postgrestest"
)

// Fifty writers each add a line to one section, on the condition that it is as they have
// read it, and repeat when it isn't. On PostgreSQL they use two servers.
func TestFiftyWritersOfOneConfigurationLoseNoUpdate(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) []*running{
		"SQLite": func(t *testing.T) []*running {
			t.Helper()
			return []*running{start(t, controlplane.Options{})}
		},
		"PostgreSQL": func(t *testing.T) []*running {
			t.Helper()
			url := postgresServer.URL(t)
			return []*running{start(t, controlplane.Options{DatabaseURL: url}), start(t, controlplane.Options{DatabaseURL: url})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			servers := open(t)
			bearer := "Bearer " + servers[0].token(t)
			call := func(r *running, name, body string) (int, string) {
				status, _, text := r.send(t, "POST", r.api+"/"+name, body, "Authorization", bearer)
				return status, text
			}
			_, text := call(servers[0], "tasks.create", `{"name":"service","type":"service"}`)
			var made struct{ Data struct{ ID string } }
			if err := json.Unmarshal([]byte(text), &made); err != nil {
				t.Fatal(err)
			}
			read := func(r *running) string {
				_, text := call(r, "tasks.get_by_id", fmt.Sprintf(`{"task":%q}`, made.Data.ID))
				var got struct {
					Data struct {
						Task struct {
							Configuration map[string]struct{ Value string }
						}
					}
				}
				if err := json.Unmarshal([]byte(text), &got); err != nil {
					t.Errorf("%v in %s", err, text)
				}
				return got.Data.Task.Configuration["lines"].Value
			}
			const writers = 50
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					r := servers[w%len(servers)]
					for {
						before := read(r)
						hash := ""
						if before != "" {
							sum := sha256.Sum256([]byte(before))
							hash = hex.EncodeToString(sum[:])
						}
						body := fmt.Sprintf(`{"task":%q,"configuration":[{"name":"lines","value":%q}],"if_match":{"lines":%q}}`, made.Data.ID, before+fmt.Sprintf("<%d>", w), hash)
						status, text := call(r, "tasks.edit_configuration", body)
						if status == 200 {
							return
						}
						if !strings.Contains(text, `"result_subcode":122`) {
							t.Errorf("writer %d: %d %s", w, status, text)
							return
						}
					}
				})
			}
			wg.Wait()
			lines := read(servers[0])
			for w := range writers {
				if n := strings.Count(lines, fmt.Sprintf("<%d>", w)); n != 1 {
					t.Errorf("the line of writer %d is there %d times", w, n)
				}
			}
		})
	}
}

func TestReportsOlderThanTheRetentionAreRemovedAndOthersKept(t *testing.T) {
	dir := t.TempDir()
	first := start(t, controlplane.Options{DataDir: dir})
	bearer := "Bearer " + first.token(t)
	_, _, text := first.send(t, "POST", first.api+"/tasks.create", `{"name":"task","type":"training"}`, "Authorization", bearer)
	var made struct{ Data struct{ ID string } }
	if err := json.Unmarshal([]byte(text), &made); err != nil {
		t.Fatal(err)
	}
	for i, at := range []time.Time{time.Now().Add(-50 * time.Hour), time.Now().Add(-49 * time.Hour), time.Now()} {
		body := fmt.Sprintf(`{"type":"log","task":%q,"timestamp":%d,"msg":"line %d"}`, made.Data.ID, at.UnixMilli(), i)
		if status, _, text := first.send(t, "POST", first.api+"/events.add", body, "Authorization", bearer); status != 200 {
			t.Fatalf("events.add: %d %s", status, text)
		}
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, controlplane.Options{DataDir: dir, EventsRetention: 48 * time.Hour})
	deadline := time.Now().Add(time.Minute)
	for {
		_, _, text := second.send(t, "POST", second.api+"/events.get_task_log", fmt.Sprintf(`{"task":%q}`, made.Data.ID), "Authorization", bearer)
		if !strings.Contains(text, "line 2") {
			t.Fatalf("the new line is gone: %s", text)
		}
		if !strings.Contains(text, "line 0") && !strings.Contains(text, "line 1") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("old lines stay: %s", text)
		}
	}
}

func TestSecondServerOnADataFolderIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	start(t, controlplane.Options{DataDir: dir})
	_, err := controlplane.New(controlplane.Options{DataDir: dir, API: socket(t)})
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v, want a refusal that names the folder", err)
	}
}

func TestWhileTheDatabaseIsAwayCallsAreAnsweredWith503(t *testing.T) {
	var database postgrestest.Server
	url := database.URL(t)
	t.Cleanup(database.Stop)
	r := start(t, controlplane.Options{DatabaseURL: url})
	bearer := "Bearer " + r.token(t)
	database.Stop()
	for _, call := range []string{"tasks.get_all", "tasks.create"} {
		status, _, text := r.send(t, "POST", r.api+"/"+call, `{"name":"a task","type":"training"}`, "Authorization", bearer)
		if status != 503 || !strings.Contains(text, "isn't reached") || strings.Contains(text, "127.0.0.1") {
			t.Errorf("%s: %d %s, want 503 that says why and not where", call, status, text)
		}
	}
}
