package postgres_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"clearmlserving/controlplane/store"
	"clearmlserving/controlplane/store/postgres"
	"clearmlserving/controlplane/store/postgres/postgrestest"
	"clearmlserving/controlplane/store/storetest"
)

var server postgrestest.Server

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m, &server)) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		t.Helper()
		return server.New(t)
	})
}

func insert(t *testing.T, s store.Store, doc store.Doc) error {
	t.Helper()
	return s.Tx(t.Context(), func(tx store.Tx) error { return tx.Insert(t.Context(), store.Task, doc) })
}

func TestServersOnOneDatabaseSeeEachOthersWritesAndLoseNone(t *testing.T) {
	url := server.URL(t)
	var servers []*postgres.Store
	for range 3 {
		servers = append(servers, postgrestest.Open(t, url))
	}
	if err := insert(t, servers[0], store.Doc{"id": "a", "last_iteration": int64(0)}); err != nil {
		t.Fatal(err)
	}
	const times = 40
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			for range times {
				if err := store.Update(t.Context(), s, store.Task, "a", func(doc store.Doc) error {
					doc["last_iteration"] = doc.Int("last_iteration") + 1
					return nil
				}); err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for i, s := range servers {
		doc, err := s.Get(t.Context(), store.Task, "a")
		if err != nil || doc.Int("last_iteration") != int64(len(servers)*times) {
			t.Errorf("server %d sees %d, %v, want %d", i, doc.Int("last_iteration"), err, len(servers)*times)
		}
	}
}

func TestServersThatOpenAnEmptyDatabaseTogetherAllSucceed(t *testing.T) {
	url := server.URL(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := postgres.Open(t.Context(), postgres.Options{URL: url})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// hearing collects what a server hears.
func hearing(t *testing.T, s *postgres.Store) <-chan struct{} {
	t.Helper()
	news := make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one result, so that the goroutine never waits
	go func() {
		ended <- s.Hear(ctx, func() {
			select {
			case news <- struct{}{}:
			case <-ctx.Done(): // a slow listener hears more than the test wants
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Hear: %v", err)
		}
	})
	return news
}

// awaitListeners waits until so many connections of the database listen.
func awaitListeners(t *testing.T, admin *pgx.Conn, want int) {
	t.Helper()
	for n := -1; n != want; {
		const listening = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query LIKE 'LISTEN %'`
		if err := admin.QueryRow(t.Context(), listening).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

// told notifies once and waits until that is heard.
func told(t *testing.T, from *postgres.Store, heard <-chan struct{}) {
	t.Helper()
	if err := from.Tell(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-heard:
	case <-t.Context().Done():
		t.Fatal("nothing was heard")
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return admin
}

func TestNewsReachOtherServersAndNotTheTeller(t *testing.T) {
	url := server.URL(t)
	teller, listener := postgrestest.Open(t, url), postgrestest.Open(t, url)
	own, others := hearing(t, teller), hearing(t, listener)
	awaitListeners(t, connect(t, url), 2)
	for range 3 {
		told(t, teller, others)
	}
	for range 5 { // in order: the teller's own would come first
		told(t, listener, own)
	}
	if n := len(own); n > 0 {
		t.Errorf("the teller heard %d more than what others told", n)
	}
}

func TestBrokenConnectionsHealAndAreTold(t *testing.T) {
	url := server.URL(t)
	teller, listener := postgrestest.Open(t, url), postgrestest.Open(t, url)
	others, admin := hearing(t, listener), connect(t, url)
	awaitListeners(t, admin, 1)
	told(t, teller, others)
	if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	select {
	case <-others: // although nothing was told: something may have been missed
	case <-t.Context().Done():
		t.Fatal("the break was not told")
	}
	for teller.Tell(t.Context()) != nil { // the connections of its pool are broken too
	}
	select {
	case <-others:
	case <-t.Context().Done():
		t.Fatal("nothing was heard after the break")
	}
	if _, err := listener.Count(t.Context(), store.Task, nil); err != nil {
		t.Errorf("after the break: %v", err)
	}
}

func TestAPatternThatPostgreSQLCannotSayIsStillExact(t *testing.T) {
	s := server.New(t)
	for id, name := range map[string]string{"a": "one two", "b": "onetwo", "c": "x\none"} {
		if err := insert(t, s, store.Doc{"id": id, "name": name}); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string]int{`\bone\b`: 2, `(?m)^one`: 3, `(?i)[K]`: 0, `o{1,300}ne`: 3, `(?:^)*one`: 3} {
		if n := count(t, s, pattern); n != want {
			t.Errorf("%s finds %d, want %d", pattern, n, want)
		}
	}
}

func TestTroubleIsNamed(t *testing.T) {
	s := server.New(t)
	if err := insert(t, s, store.Doc{"id": "a", "name": strings.Repeat("näme 1x", 9000) + randomText(20_000)}); !errors.Is(err, store.ErrTooLong) {
		t.Errorf("a name of many thousand letters: %v, want store.ErrTooLong", err)
	}
	if err := insert(t, s, store.Doc{"id": "nul", "name": "a\x00b"}); err != nil {
		t.Errorf("a name with a NUL: %v", err)
	}
	if doc, err := s.Get(t.Context(), store.Task, "nul"); err != nil || doc.Text("name") != "a\x00b" {
		t.Errorf("it came back as %q, %v", doc.Text("name"), err)
	}
	_, err := postgres.Open(t.Context(), postgres.Options{URL: "postgres://me:hush@127.0.0.1:1/db?connect_timeout=2"})
	if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "hush") {
		t.Errorf("no server: %v, want store.ErrUnavailable without the password", err)
	}
	for _, url := range []string{"postgres://me:hush@host:port/db", "nonsense", "mysql://me:hush@host/db"} {
		if _, err := postgres.Open(t.Context(), postgres.Options{URL: url}); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want a refusal without the password", url, err)
		}
	}
}
