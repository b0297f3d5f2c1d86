package security_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// Neither credentials nor payloads get into the log, at its most verbose level, on any failing
// path.
func TestLogsHoldNoCredentialsAndNoPayloads(t *testing.T) {
	w := newWorld(t)
	const payload, credential = "marker-payload-8f2a", "marker-credential-77b1"
	secrets := []string{
		"Bearer " + credential, "bearer csk_" + credential, "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+credential)),
		"Basic " + credential, "Digest " + credential, "Bearer eyJhbGciOiJIUzI1NiJ9." + credential + ".x",
	}
	bodies := []string{payload, `{"x":"` + payload + `"`, `["` + payload + `"]`, strings.Repeat(payload, 80_000), "\x1f\x8b\x08" + payload}
	for _, authorization := range append(secrets, "Bearer "+w.key, w.basic()["Authorization"]) {
		for i, body := range bodies {
			header := map[string]string{"Authorization": authorization, "Cookie": "clearml_token_basic=" + credential, "Content-Type": "application/json"}
			if i == 4 {
				header["Content-Encoding"] = "gzip"
			}
			for _, path := range []string{"/serve/echo", "/serve/fails", "/serve/slow", "/serve/nobody?token=" + credential, "/status?key=" + credential, "/other/" + payload} {
				if path == "/serve/slow" && i > 0 {
					continue // once is enough, because it takes long
				}
				w.ask(t, "POST", w.serve+path, body, header)
			}
			for _, call := range []string{"tasks.get_all", "tasks.edit", "auth.login", "auth.create_user", "auth.create_credentials", "events.add_batch", "models.create", "no.such_call", "tasks.get_by_id?password=" + credential} {
				w.ask(t, "POST", w.api+"/"+call, body, header)
			}
			w.ask(t, "PUT", w.files+"/a/b", body, header)
			w.ask(t, "POST", w.files+"/", body, merge(header, "Content-Type", "multipart/form-data; boundary=b"))
			w.ask(t, "POST", w.files+"/delete_many", body, header)
			w.ask(t, "GET", w.admin+"/status?token="+credential, "", header)
		}
	}
	for _, raw := range []string{
		"POST /serve/echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + credential + "\r\nBad Header " + credential + "\r\n\r\n",
		"POST /serve/echo HTTP/1.1\r\nAuthorization: Bearer " + credential + "\r\nContent-Length: 3, 4\r\n\r\n" + payload,
		"GARBAGE " + credential + " " + payload + "\r\n\r\n",
		"POST http://user:" + credential + "@host/serve/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		fmt.Sprintf("POST /serve/echo HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n%s", w.key, payload),
	} {
		send(t, w.serve, raw)
		send(t, w.api, raw)
		send(t, w.files, raw)
	}
	log := w.log.String()
	for name, word := range map[string]string{
		"a payload": payload, "a credential": credential, "the data plane's key": w.key, "the secret key": w.secret,
		"an encoded credential": base64.StdEncoding.EncodeToString([]byte("user:" + credential)), "an escaped one": url.QueryEscape(w.secret),
	} {
		if i := strings.Index(log, word); i >= 0 {
			t.Errorf("the log contains %s: %s", name, log[max(0, i-300):min(len(log), i+100)])
		}
	}
	if len(log) < 1000 {
		t.Errorf("the log is empty, so nothing was tested: %s", log)
	}
	w.alive(t)
}
