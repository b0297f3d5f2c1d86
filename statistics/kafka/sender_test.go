package kafka

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/message"
)

// patience bounds the wait for any event, on a busy machine.
const patience = 2 * time.Minute

// broker starts a broker in this process.
func broker(t *testing.T, options ...kfake.Opt) (cluster *kfake.Cluster, servers string) {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, strings.Join(cluster.ListenAddrs(), ",")
}

// freePort is a port on which nothing listens now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its number is needed
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal(l.Addr())
	}
	return addr.Port
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// run runs a Sender until the test ends, or until stop.
func run(t *testing.T, o SenderOptions) (s *Sender, stop func()) {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s = NewSender(o)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return s, stop
}

func forward(s *Sender, url serving.EndpointURL, from, to int) {
	for i := from; i < to; i++ {
		s.Forward(i, serving.Sample{URL: url, Latency: time.Second, Sampled: true, Weight: 2, Variables: fmt.Appendf(nil, `{"n": %d}`, i)})
	}
}

// received reads all records of the topic.
func received(t *testing.T, servers string, want int) (all []message.Record, messages []*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(servers, ",")...), kgo.ConsumeTopics(message.Topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for len(all) < want {
		fetched := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d records of %d: %v", len(all), want, fetched.Errors())
		}
		fetched.EachRecord(func(r *kgo.Record) {
			records, broken, err := message.Decode(r.Value)
			if err != nil || broken != (message.Broken{}) {
				t.Errorf("%s: %+v %v", r.Value, broken, err)
			}
			all, messages = append(all, records...), append(messages, r)
		})
	}
	return all, messages
}

// wantEach checks that each number has arrived once, for each endpoint in order.
func wantEach(t *testing.T, all []message.Record, n int) {
	t.Helper()
	next := map[serving.EndpointURL]int{}
	for _, r := range all {
		if got := fmt.Sprint(r.Variables["n"]); got != fmt.Sprint(next[r.URL]) || r.Latency != 1 || r.Count != 2 {
			t.Fatalf("%+v, want number %d", r, next[r.URL])
		}
		next[r.URL]++
	}
	if len(all) != n {
		t.Errorf("%d records, want %d", len(all), n)
	}
}

func wantLost(t *testing.T, s *Sender, want map[string]uint64) {
	t.Helper()
	for reason, n := range s.Forwarding().Lost {
		if n != want[reason] {
			t.Errorf("%d lost because of %s, want %d", n, reason, want[reason])
		}
	}
}

func TestEachSampleArrivesOnceInOrderByEndpoint(t *testing.T) {
	_, servers := broker(t)
	s, stop := run(t, SenderOptions{Lanes: 1, Servers: servers, Dir: t.TempDir()})
	forward(s, "m/1", 0, 3000)
	forward(s, "other", 0, 500)
	eventually(t, "all are acknowledged", func() error {
		if f := s.Forwarding(); f.Sent != 3500 || f.Waiting != 0 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	forward(s, "m/1", 3000, 3010) // sent by the graceful stop
	stop()
	all, messages := received(t, servers, 3510)
	wantEach(t, all, 3510)
	where := map[string]int32{}
	for _, m := range messages {
		if p, known := where[string(m.Key)]; known && p != m.Partition {
			t.Errorf("key %s is in partitions %d and %d", m.Key, p, m.Partition)
		}
		where[string(m.Key)] = m.Partition
		if codec := m.Attrs.CompressionType(); codec != 3 {
			t.Errorf("compression %d, want 3: lz4", codec)
		}
	}
	if len(where) != 2 {
		t.Errorf("keys %v", where)
	}
	wantLost(t, s, nil)
}

func TestWithoutBrokersNothingIsKept(t *testing.T) {
	s, stop := run(t, SenderOptions{Lanes: 1, Dir: t.TempDir()})
	forward(s, "m", 0, 100)
	stop()
	if f := s.Forwarding(); f.Active || f.Waiting != 0 || f.Sent != 0 {
		t.Errorf("%+v", f)
	}
	sample := serving.Sample{URL: "m", Variables: []byte(`{}`)}
	if n := testing.AllocsPerRun(100, func() { s.Forward(0, sample) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTheServiceSwitchesTheBrokersWhileItRuns(t *testing.T) {
	_, first := broker(t)
	_, second := broker(t)
	s, _ := run(t, SenderOptions{Lanes: 1})
	sent := func(n uint64) {
		t.Helper()
		eventually(t, "acknowledged", func() error {
			if f := s.Forwarding(); f.Sent != n {
				return fmt.Errorf("%+v", f)
			}
			return nil
		})
	}
	s.Use(first)
	forward(s, "m", 0, 10)
	sent(10)
	s.Use("")
	forward(s, "m", 0, 1000)
	s.Use(fmt.Sprintf("127.0.0.1:%d", freePort(t))) // nothing listens there
	forward(s, "m", 0, 5)
	eventually(t, "queued", func() error {
		if f := s.Forwarding(); f.Waiting != 5 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	s.Use(second)
	sent(15)
	all, _ := received(t, first, 10)
	wantEach(t, all, 10)
	all, _ = received(t, second, 5)
	wantEach(t, all, 5)
	wantLost(t, s, nil)
}

func TestKafkaThatIsAwayAtTheStartAndOverARestartLosesNothing(t *testing.T) {
	port, dir := freePort(t), t.TempDir()
	servers := fmt.Sprintf("127.0.0.1:%d", port)
	for i := range 3 { // each time as in another process
		s, stop := run(t, SenderOptions{Lanes: 1, Servers: servers, Dir: dir})
		if i > 0 {
			eventually(t, "the queue of the last run is read", func() error {
				if f := s.Forwarding(); f.Waiting != int64(1000*i) {
					return fmt.Errorf("%+v", f)
				}
				return nil
			})
		}
		forward(s, "m", 1000*i, 1000*(i+1))
		stop()
		if f := s.Forwarding(); f.Sent != 0 || f.Waiting != int64(1000*(i+1)) {
			t.Fatalf("%+v", f)
		}
		wantLost(t, s, nil)
	}
	broker(t, kfake.Ports(port))
	s, _ := run(t, SenderOptions{Lanes: 1, Servers: servers, Dir: dir})
	forward(s, "m", 3000, 3100)
	all, _ := received(t, servers, 3100)
	wantEach(t, all, 3100)
	eventually(t, "the files are gone", func() error {
		if f := s.Forwarding(); f.Stored != 0 || f.Sent != 3100 {
			return fmt.Errorf("%+v", f)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
		if err != nil || len(files) != 0 {
			return fmt.Errorf("%v %w", files, err)
		}
		return nil
	})
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

func TestKafkaThatGoesAwayIsLoggedOnceAndSoIsItsReturn(t *testing.T) {
	port := freePort(t)
	servers := fmt.Sprintf("127.0.0.1:%d", port)
	log := &journal{}
	cluster, _ := broker(t, kfake.Ports(port), kfake.SeedTopics(1, message.Topic))
	s, _ := run(t, SenderOptions{Lanes: 1, Servers: servers, Logger: slog.New(slog.NewTextHandler(log, nil))})
	forward(s, "m", 0, 10)
	received(t, servers, 10)
	cluster.Close()
	forward(s, "m", 10, 20)
	wait := func(text string, more func()) {
		eventually(t, text, func() error {
			if more(); log.count(text) != 1 {
				return fmt.Errorf("logged %d times", log.count(text))
			}
			return nil
		})
	}
	n := 20
	wait("statistics not sent", func() { forward(s, "m", n, n+1); n++ })
	broker(t, kfake.Ports(port), kfake.SeedTopics(1, message.Topic)) // it has lost its disk
	wait("statistics are sent again", func() {})
	received(t, servers, n-10)
	if log.count("statistics not sent") != 1 {
		t.Error(log.text.String())
	}
}

func TestAFolderOfAnotherProcessIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close() //nolint:errcheck // a lock needs no flush
	s, stop := run(t, SenderOptions{Lanes: 1, Servers: fmt.Sprintf("127.0.0.1:%d", freePort(t)), Dir: dir})
	forward(s, "m", 0, 10)
	stop()
	wantLost(t, s, map[string]uint64{"disk": 10})
	if files, _ := os.ReadDir(dir); len(files) != 1 { // the lock
		t.Errorf("%v", files)
	}
}

func TestAnUnusableAddressIsReportedAndLosesNothing(t *testing.T) {
	_, servers := broker(t)
	s, _ := run(t, SenderOptions{Lanes: 1, Servers: "http://kafka:9092/x"})
	forward(s, "m", 0, 10)
	eventually(t, "queued", func() error {
		if f := s.Forwarding(); f.Waiting != 10 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	s.Use(servers)
	all, _ := received(t, servers, 10)
	wantEach(t, all, 10)
}

func TestAMessageThatTheBrokerFindsTooLargeIsSplit(t *testing.T) {
	_, servers := broker(t, kfake.SeedTopics(1, message.Topic), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2000"}))
	s, _ := run(t, SenderOptions{Lanes: 1, Servers: servers})
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same at each run
	noise := make([]byte, 4000)
	for i := range noise {
		noise[i] = byte('a' + random.IntN(26))
	}
	s.Forward(0, serving.Sample{URL: "m", Weight: 1, Latency: time.Second, Variables: fmt.Appendf(nil, `{"noise": %q}`, noise)}) // never fits
	s.Forward(0, serving.Sample{URL: "m", Weight: 1, Variables: make([]byte, maxRecord+1)})
	s.Forward(0, serving.Sample{URL: "m", Weight: 1, Variables: []byte(`{"broken`)})
	forward(s, "m", 0, 20)
	all, _ := received(t, servers, 20)
	if len(all) != 20 {
		t.Errorf("%d records", len(all))
	}
	eventually(t, "the rest is lost", func() error {
		if f := s.Forwarding(); f.Sent != 20 || f.Lost["too_large"] != 2 || f.Lost["unreadable"] != 1 || f.Waiting != 0 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
}

func TestADamagedMessageThatTheBrokerFindsTooLargeIsLost(t *testing.T) {
	_, servers := broker(t, kfake.SeedTopics(1, message.Topic), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2000"}))
	damaged := make([]byte, 4000)
	if _, err := crand.Read(damaged); err != nil {
		t.Fatal(err)
	}
	q := &queue{dir: t.TempDir()}
	if !q.store(1, []packet{{"m", damaged, 3}}, true) {
		t.Fatal("not stored")
	}
	s, _ := run(t, SenderOptions{Lanes: 1, Servers: servers, Dir: q.dir})
	eventually(t, "it is lost", func() error {
		if f := s.Forwarding(); f.Lost["unreadable"] != 3 || f.Waiting != 0 {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
}

func TestSamplesThatComeTooFastAreCounted(t *testing.T) {
	s := NewSender(SenderOptions{Lanes: 2, Servers: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	s.mu.Lock() // as while the queue is written to the disk: requests do not wait for that
	forwarded := make(chan struct{})
	go func() {
		defer close(forwarded)
		for i := range 2*maxLaneCount + 100 {
			s.Forward(i, serving.Sample{URL: "m"})
		}
	}()
	select {
	case <-forwarded:
	case <-time.After(patience):
		t.Error("requests wait for the queue")
	}
	s.mu.Unlock()
	<-forwarded
	wantLost(t, s, map[string]uint64{"memory": 100})
	big := serving.Sample{URL: "m", Variables: make([]byte, maxLaneBytes/2+1)}
	s = NewSender(SenderOptions{Lanes: 1, Servers: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	s.Forward(0, big)
	s.Forward(0, big)
	wantLost(t, s, map[string]uint64{"memory": 1})
}

// small is a queue with small bounds, and what it has lost.
func small(dir string, memory int, disk int64) (q *queue, lost map[string]int) {
	lost = map[string]int{}
	return &queue{
		dir: dir, memoryBound: memory, diskBound: disk,
		lost: func(reason string, n int) { lost[reason] += n }, fail: func(error) { lost["errors"]++ },
	}, lost
}

// drain takes everything out of a queue.
func drain(q *queue) (values []string) {
	for {
		chunk := q.next()
		if len(chunk) == 0 {
			return values
		}
		for _, p := range chunk {
			values = append(values, string(p.Value))
		}
		q.done(nil)
	}
}

func TestTheQueueKeepsItsOrderOverMemoryAndDisk(t *testing.T) {
	q, lost := small(t.TempDir(), 100, 1<<20)
	if err := q.open(); err != nil {
		t.Fatal(err)
	}
	put := func(from, to int) {
		for i := from; i < to; i++ {
			q.put(packet{Key: "k", Value: fmt.Appendf(nil, "%010d", i), Records: 1})
		}
	}
	put(0, 5)
	flight := q.next() // 0 to 4
	put(5, 40)
	if len(q.files) == 0 || q.waiting() != 40 {
		t.Fatalf("%d files, %d waiting", len(q.files), q.waiting())
	}
	q.done(flight[2:]) // two are acknowledged
	q.close()
	q2, lost2 := small(q.dir, 100, 1<<20) // as in another process
	if err := q2.open(); err != nil {
		t.Fatal(err)
	}
	if n := q2.waiting(); n != 38 {
		t.Errorf("%d waiting, want 38", n)
	}
	q2.done(q2.next()[1:]) // one more is acknowledged, of a file
	q2.close()
	q3, _ := small(q.dir, 100, 1<<20)
	if err := q3.open(); err != nil {
		t.Fatal(err)
	}
	got := drain(q3)
	for i, value := range got {
		if want := fmt.Sprintf("%010d", i+3); value != want {
			t.Fatalf("%v: %s, want %s", got, value, want)
		}
	}
	if len(got) != 37 || len(lost) != 0 || len(lost2) != 0 || q3.stored != 0 {
		t.Errorf("%d values, lost %v %v, %d bytes stored", len(got), lost, lost2, q3.stored)
	}
}

func TestWhatExceedsTheDisksBoundIsCounted(t *testing.T) {
	q, lost := small(t.TempDir(), 100, 500)
	for i := range 100 {
		q.put(packet{Value: fmt.Appendf(nil, "%010d", i), Records: 1})
	}
	if got := len(drain(q)); lost["queue_full"] == 0 || got+lost["queue_full"] != 100 || lost["errors"] != 0 {
		t.Errorf("%d left, lost %v", got, lost)
	}
}

func TestADiskThatCannotBeWrittenLosesOnlyWhatMemoryCannotHold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no folder
		t.Fatal(err)
	}
	q, lost := small(dir, 100, 1<<20)
	for i := range 50 {
		q.put(packet{Value: fmt.Appendf(nil, "%010d", i), Records: 1})
	}
	if lost["disk"] != 30 || lost["errors"] == 0 || q.waiting() != 20 {
		t.Errorf("lost %v, %d waiting", lost, q.waiting())
	}
	if got := drain(q); len(got) != 20 || got[0] != "0000000000" {
		t.Errorf("%v", got)
	}
}

func TestADamagedFileIsCountedAndTheOthersAreSent(t *testing.T) {
	dir := t.TempDir()
	q, _ := small(dir, 100, 1<<20)
	for i := range 31 {
		q.put(packet{Value: fmt.Appendf(nil, "%010d", i), Records: 1})
	}
	if err := os.WriteFile(filepath.Join(dir, q.files[1].name()), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".writing-1"), []byte("of a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	q.close()
	q, lost := small(dir, 100, 1<<20)
	if err := q.open(); err != nil {
		t.Fatal(err)
	}
	if got := drain(q); len(got) != 21 || lost["unreadable"] != 10 {
		t.Errorf("%d left, lost %v", len(got), lost)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestAddressesOfBrokers(t *testing.T) {
	for given, want := range map[string]string{
		"kafka": "[kafka:9092]", "a:1, b:2,": "[a:1 b:2]", "[::1]:5": "[[::1]:5]", "::1": "[[::1]:9092]",
		"": "", "http://kafka:9092": "", "a b": "", ",": "",
	} {
		got, err := seeds(given)
		if (err == nil) != (want != "") || want != "" && fmt.Sprint(got) != want {
			t.Errorf("%q: %v %v, want %s", given, got, err, want)
		}
	}
}

func BenchmarkForward(b *testing.B) {
	for _, servers := range []string{"", "127.0.0.1:1"} {
		b.Run("servers="+servers, func(b *testing.B) {
			m := statistics.New()
			s := NewSender(SenderOptions{Lanes: m.Lanes(), Servers: servers, Logger: slog.New(slog.DiscardHandler)})
			m.SetForwarder(s)
			m.Follow(serving.Plan{Endpoints: map[serving.EndpointURL]serving.PlannedEndpoint{"m": {}}})
			one := serving.Sample{URL: "m", Latency: time.Millisecond, Sampled: true, Weight: 1}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%maxLaneCount == 0 {
					s.pack()
				}
				m.Record(one)
			}
		})
	}
}
