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

// hearing collects what a server hears; it is ready when the channel is closed.
func hearing(t *testing.T, s *postgres.Store) <-chan store.News {
	t.Helper()
	news := make(chan store.News, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one result, so that the goroutine never waits
	go func() {
		ended <- s.Hear(ctx, func(n store.News) {
			select {
			case news <- n:
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

// tellUntilHeard tells until the other side listens, and returns what it heard.
func tellUntilHeard(t *testing.T, from *postgres.Store, news store.News, heard <-chan store.News) store.News {
	t.Helper()
	for {
		if err := from.Tell(t.Context(), []store.News{news}); err != nil && !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		select {
		case n := <-heard:
			return n
		case <-t.Context().Done():
			t.Fatal("nothing was heard")
		default:
		}
	}
}

func TestNewsReachOtherServersAndNotTheTeller(t *testing.T) {
	url := server.URL(t)
	teller, listener := postgrestest.Open(t, url), postgrestest.Open(t, url)
	own, others := hearing(t, teller), hearing(t, listener)
	want := store.News{Kind: store.Model, ID: "id with spaces"}
	if got := tellUntilHeard(t, teller, want, others); got != want {
		t.Errorf("heard %v, want %v", got, want)
	}
	back := store.News{Kind: store.Task, ID: "back"}
	if got := tellUntilHeard(t, listener, back, own); got != back {
		t.Errorf("the teller heard %v, want only what others tell: %v", got, back)
	}
}

func TestBrokenConnectionsHealAndAreTold(t *testing.T) {
	url := server.URL(t)
	teller, listener := postgrestest.Open(t, url), postgrestest.Open(t, url)
	others := hearing(t, listener)
	tellUntilHeard(t, teller, store.News{Kind: store.Task, ID: "1"}, others)
	admin, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	if err := errors.Join(err, admin.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	anything := store.News{} // may have changed meanwhile
	for tellUntilHeard(t, teller, store.News{Kind: store.Task, ID: "2"}, others) != anything {
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
