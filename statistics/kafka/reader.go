package kafka

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"clearmlserving/retry"
	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/message"
)

const (
	countEvery         = time.Second      // between two transactions
	maxPoll            = 5000             // messages of one transaction
	maxEndpoints       = 5000             // further URLs are not counted
	transactionTimeout = 10 * time.Second // a killed replica delays the others by at most this
	sessionTimeout     = 15 * time.Second
	endWithin          = 15 * time.Second // one transaction
	leaveWithin        = 3 * time.Second  // the group, at the end
	renewEvery         = 2 * time.Second  // definitions, because of unknown variables
)

// Definitions say what the variables of endpoints are.
type Definitions interface {
	// Version changes with the definitions.
	Version() int
	// For returns the definitions for an endpoint.
	For(url serving.EndpointURL) map[string]serving.Metric
	// Renew reads the definitions again.
	Renew(ctx context.Context)
}

// ReaderOptions are the options of a Reader.
type ReaderOptions struct {
	// Service is the id of the serving service. Readers of one service share its messages.
	Service string
	// Replica is the name under which the counts are kept. No two replicas may have the same.
	Replica string
	// Servers are the brokers of services that name none.
	Servers     string
	Access      Access
	Definitions Definitions
	Logger      *slog.Logger
}

// Reader counts the records of messages. Several Readers of one service are a consumer group: each
// counts the messages of some partitions.
//
// Each message is counted once, also if a Reader is killed: the counts are stored in a compacted topic,
// in the same transaction as the positions up to which messages are counted. Only stored counts
// are exposed. A Reader exposes only what it has counted itself, also before a restart under its name.
// So its counters never go back when another Reader takes a partition from it, and the sum over all
// Readers is exact.
type Reader struct {
	o    ReaderOptions
	from brokers

	mu       sync.Mutex // guards the fields below
	counts   counts
	assigned map[int32]bool
	lag      map[int32]int64
	ready    bool
	failure  string
	aborted  uint64
}

// counts are what a Reader has counted. Its Aggregates do not change: a transaction replaces them.
type counts struct {
	endpoints map[serving.EndpointURL]*statistics.Aggregate
	totals    totals
}

// totals are the counts of a whole Reader.
type totals struct {
	Messages uint64            `json:"messages"`
	Records  uint64            `json:"records"`
	Skipped  map[string]uint64 `json:"skipped"`
	// Next are the positions up to which this Reader has counted. They are used if the group has lost
	// its own, as Kafka removes those of a group without members after a week.
	Next map[int32]int64 `json:"next,omitempty"`
}

// The reasons why messages or records are skipped.
const (
	skippedMessage  = "no_list" // a whole message
	skippedObject   = "no_object"
	skippedURL      = "no_url"
	skippedBuiltin  = "builtin"
	skippedEndpoint = "endpoints"
)

func newCounts() counts {
	return counts{map[serving.EndpointURL]*statistics.Aggregate{}, totals{Next: map[int32]int64{}, Skipped: map[string]uint64{
		skippedMessage: 0, skippedObject: 0, skippedURL: 0, skippedBuiltin: 0, skippedEndpoint: 0,
	}}}
}

// NewReader returns a Reader, which counts while Run runs.
func NewReader(o ReaderOptions) *Reader {
	return &Reader{o: o, from: brokers{servers: o.Servers}, counts: newCounts(), assigned: map[int32]bool{}, lag: map[int32]int64{}}
}

// Use sets the brokers that the service names, "" for the default.
func (r *Reader) Use(servers string) { r.from.use(cmp.Or(servers, r.o.Servers)) }

// Collector exposes the counts. names returns the labels of an endpoint.
func (r *Reader) Collector(names func(serving.EndpointURL) statistics.Names) statistics.AggregateCollector {
	return statistics.AggregateCollector{
		All: func() map[serving.EndpointURL]*statistics.Aggregate {
			r.mu.Lock()
			defer r.mu.Unlock()
			return maps.Clone(r.counts.endpoints)
		},
		Names: names,
		Current: func(partition int32) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.assigned[partition]
		},
		Report: r.Report,
	}
}

// Report describes the Reader.
func (r *Reader) Report() statistics.ReaderReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return statistics.ReaderReport{
		Connected: r.ready, Messages: r.counts.totals.Messages, Records: r.counts.totals.Records, Skipped: maps.Clone(r.counts.totals.Skipped),
		Lag: maps.Clone(r.lag), Aborted: r.aborted,
	}
}

// Ready returns nil if messages are read, else the reason why not.
func (r *Reader) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.ready:
		return nil
	case r.failure != "":
		return errors.New(r.failure)
	}
	return errors.New("connecting to Kafka")
}

// Run counts until ctx ends. It connects again after every error, with the counts that are stored.
func (r *Reader) Run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		connection, servers, end := r.from.connection(ctx)
		begun := time.Now()
		err := r.read(connection, servers)
		replaced := connection.Err() != nil
		end()
		r.mu.Lock()
		r.ready = false
		clear(r.assigned)
		clear(r.lag)
		r.mu.Unlock()
		if replaced {
			failures = 0
			continue
		}
		if time.Since(begun) > time.Minute {
			failures = 0
		}
		failures++
		err = explain(err, r.o.Replica)
		r.mu.Lock()
		r.failure = err.Error()
		r.mu.Unlock()
		r.o.Logger.Warn("statistics not read from Kafka", "kafka", servers, "err", err)
		if retry.Sleep(ctx, retry.Jittered(retry.Doubled(failures, 500*time.Millisecond, 10*time.Second))) != nil {
			return
		}
	}
}

// explain says what to do about errors that do not end by themselves.
func explain(err error, replica string) error {
	switch {
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("another replica has the name %q, or had it a moment ago; give each one its own with --replica: %w", replica, err)
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fmt.Errorf("the user may not do this; it needs to read and create topic %s, read and write topic %s, and use group and transactional id %s*: %w",
			message.Topic, StateTopic, groupPrefix, err)
	}
	return err
}

const groupPrefix = "clearml-serving-statistics-"

func (r *Reader) group() string { return groupPrefix + r.o.Service }

// read counts until ctx ends or something fails.
func (r *Reader) read(ctx context.Context, servers string) error {
	options, err := connect(servers, r.o.Access, r.o.Logger)
	if err != nil {
		return err
	}
	var counted map[int32]int64 // by all replicas; set before there are topics
	session, err := kgo.NewGroupTransactSession(append(options,
		kgo.AdjustFetchOffsetsFn(func(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			for p, next := range counted {
				if o, ours := offsets[message.Topic][p]; ours && o.EpochOffset().Offset < 0 {
					offsets[message.Topic][p] = kgo.NewOffset().At(next)
				}
			}
			return offsets, nil
		}),
		kgo.TransactionalID(r.group()+"/"+r.o.Replica), kgo.TransactionTimeout(transactionTimeout),
		// A member that comes back under its instance id has its partitions again at once.
		kgo.ConsumerGroup(r.group()), kgo.InstanceID(r.o.Replica), kgo.SessionTimeout(sessionTimeout), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()), kgo.ProducerBatchMaxBytes(maxState),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) { r.assign(added, true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { r.assign(lost, false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { r.assign(lost, false) }),
	)...)
	if err != nil {
		return err
	}
	client := session.Client()
	defer func() {
		session.Close()
		if ctx.Err() != nil {
			r.leave(context.WithoutCancel(ctx), servers)
		}
	}()
	begin, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	if err := ensureTopic(begin, client, message.Topic, partitions, nil); err != nil {
		return err
	}
	if err := ensureTopic(begin, client, StateTopic, 1, stateSettings()); err != nil {
		return err
	}
	mark, err := r.mark(begin, session)
	if err != nil {
		return fmt.Errorf("begin as transactional id %s/%s: %w", r.group(), r.o.Replica, err)
	}
	stored, next, err := loadCounts(ctx, options, r.group(), r.o.Replica, mark, r.o.Logger)
	if err != nil {
		return fmt.Errorf("load the counts: %w", err)
	}
	r.mu.Lock()
	r.counts, r.ready, r.failure = stored, true, ""
	r.mu.Unlock()
	r.o.Logger.Info("statistics are read from Kafka", "kafka", servers, "group", r.group(), "replica", r.o.Replica, "records", stored.totals.Records)
	counted = next
	client.AddConsumeTopics(message.Topic)
	return r.loop(ctx, session)
}

// mark ends the transactions of an earlier process of this name, which can store nothing from here
// on, and stores a value that comes after all of its values.
func (r *Reader) mark(ctx context.Context, session *kgo.GroupTransactSession) (offset int64, err error) {
	if _, _, err := session.Client().ProducerID(ctx); err != nil {
		return 0, err
	}
	if err := session.Begin(); err != nil {
		return 0, err
	}
	result := session.ProduceSync(ctx, &kgo.Record{Topic: StateTopic, Key: []byte(stateKey(r.group(), r.o.Replica, markURL)), Value: []byte("{}")})
	committed, err := session.End(ctx, result.FirstErr() == nil)
	if err := errors.Join(result.FirstErr(), err); err != nil {
		return 0, err
	}
	if !committed {
		return 0, errors.New("the transaction was aborted")
	}
	return result[0].Record.Offset, nil
}

// leave leaves the group, so that the other members take the partitions at once. Without it, the brokers
// notice after the session's timeout.
func (r *Reader) leave(ctx context.Context, servers string) {
	ctx, cancel := context.WithTimeout(ctx, leaveWithin)
	defer cancel()
	options, err := connect(servers, r.o.Access, r.o.Logger)
	if err != nil {
		return // it was used before
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return
	}
	defer client.Close()
	_, err = kadm.NewClient(client).LeaveGroup(ctx, kadm.LeaveGroup(r.group()).Reason("stopped").InstanceIDs(r.o.Replica))
	if err != nil {
		r.o.Logger.Debug("group not left", "err", err)
	}
}

// assign follows the partitions that this Reader reads.
func (r *Reader) assign(of map[string][]int32, ours bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range of[message.Topic] {
		if ours {
			r.assigned[p] = true
		} else {
			delete(r.assigned, p)
			delete(r.lag, p)
		}
	}
}

// loop counts the messages of the session, one transaction after another.
func (r *Reader) loop(ctx context.Context, session *kgo.GroupTransactSession) error {
	t := &transaction{reader: r}
	for {
		fetched := session.PollRecords(ctx, maxPoll)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped
		}
		if err := fetched.Err(); err != nil {
			return err // nothing of this poll is counted; it is read again
		}
		if fetched.NumRecords() > 0 {
			if err := r.count(ctx, t, session, fetched); err != nil {
				return err
			}
		}
		r.measure(fetched)
		if fetched.NumRecords() == maxPoll {
			continue // it is behind
		}
		if err := retry.Sleep(ctx, countEvery); err != nil {
			return nil //nolint:nilerr // stopped
		}
	}
}

// count counts messages in one transaction.
func (r *Reader) count(ctx context.Context, t *transaction, session *kgo.GroupTransactSession, fetched kgo.Fetches) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	t.begin(ctx)
	fetched.EachRecord(t.add)
	if err := session.Begin(); err != nil {
		return err
	}
	if err := r.store(ctx, session, t); err != nil {
		_, abort := session.End(ctx, kgo.TryAbort)
		return errors.Join(err, abort)
	}
	committed, err := session.End(ctx, kgo.TryCommit)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !committed { // a rebalance: whoever has the partitions now counts these messages
		r.aborted++
		return nil
	}
	next := counts{maps.Clone(r.counts.endpoints), t.totals}
	maps.Copy(next.endpoints, t.dirty)
	r.counts = next
	return nil
}

// store sends the counts that the transaction has changed.
func (r *Reader) store(ctx context.Context, session *kgo.GroupTransactSession, t *transaction) error {
	var mu sync.Mutex // guards first
	var first error
	send := func(url string, value any) error {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		session.Produce(ctx, &kgo.Record{Topic: StateTopic, Key: []byte(stateKey(r.group(), r.o.Replica, url)), Value: text}, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
		})
		return nil
	}
	if err := send("", t.totals); err != nil {
		return err
	}
	for url, a := range t.dirty {
		if err := send(string(url), a); err != nil {
			return fmt.Errorf("store the counts of %s: %w", url, err)
		}
	}
	if err := session.Client().Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return first
}

// measure computes how far behind this Reader is.
func (r *Reader) measure(fetched kgo.Fetches) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fetched.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 && r.assigned[p.Partition] {
			r.lag[p.Partition] = max(0, p.HighWatermark-p.Records[n-1].Offset-1)
		}
	})
}

// transaction has the counts of messages that are not committed.
type transaction struct {
	reader      *Reader
	definitions int       // version that the Aggregates have
	renewed     time.Time // when definitions were read again

	ctx    context.Context //nolint:containedctx // of one transaction; add is a callback
	base   counts
	dirty  map[serving.EndpointURL]*statistics.Aggregate
	totals totals
}

func (t *transaction) begin(ctx context.Context) {
	t.reader.mu.Lock()
	t.base = t.reader.counts
	t.reader.mu.Unlock()
	t.ctx, t.dirty, t.totals = ctx, map[serving.EndpointURL]*statistics.Aggregate{}, t.base.totals
	t.totals.Skipped, t.totals.Next = maps.Clone(t.base.totals.Skipped), maps.Clone(t.base.totals.Next)
	t.definitions = t.reader.o.Definitions.Version()
}

// add counts a message. One that cannot be read is skipped.
func (t *transaction) add(m *kgo.Record) {
	t.totals.Messages++
	t.totals.Next[m.Partition] = m.Offset + 1
	records, broken, err := message.Decode(m.Value)
	if err != nil {
		t.totals.Skipped[skippedMessage]++
		t.reader.o.Logger.Warn("statistics message skipped", "partition", m.Partition, "offset", m.Offset, "err", err)
		return
	}
	t.totals.Skipped[skippedObject] += uint64(broken.NoObject)
	t.totals.Skipped[skippedURL] += uint64(broken.NoURL)
	t.totals.Skipped[skippedBuiltin] += uint64(broken.Builtin)
	for _, one := range records {
		t.addRecord(one, m.Partition)
	}
}

func (t *transaction) addRecord(one message.Record, partition int32) {
	now := time.Now()
	a := t.dirty[one.URL]
	if a == nil {
		a = t.open(one.URL, now)
	}
	if a == nil {
		t.totals.Skipped[skippedEndpoint]++
		return
	}
	if !a.Knows(one.Variables) { // it may be new in the configuration
		t.renew(now)
	}
	if version := t.reader.o.Definitions.Version(); version != t.definitions {
		t.definitions = version
		for url, open := range t.dirty {
			open.Define(t.reader.o.Definitions.For(url), now)
		}
	}
	t.totals.Records++
	a.Add(statistics.Observation{Latency: one.Latency, Timed: one.Timed, Count: one.Count, Variables: one.Variables}, partition, now)
}

// open returns a copy of an endpoint's counts, nil if there are too many endpoints.
func (t *transaction) open(url serving.EndpointURL, now time.Time) *statistics.Aggregate {
	a := t.base.endpoints[url]
	switch {
	case a != nil:
		a = a.Clone()
	case len(t.base.endpoints)+len(t.dirty) >= maxEndpoints:
		return nil
	default:
		t.renew(now)
		a = statistics.NewAggregate(now)
	}
	a.Define(t.reader.o.Definitions.For(url), now)
	t.dirty[url] = a
	return a
}

// renew reads the definitions again, unless that was done a moment ago. A server that does not answer must not
// take the time of the whole transaction, so that moment begins when the reading has ended.
func (t *transaction) renew(now time.Time) {
	if now.Sub(t.renewed) <= renewEvery {
		return
	}
	t.reader.o.Definitions.Renew(t.ctx)
	t.renewed = time.Now()
}

// stateKey is the key of stored counts; url "": of the totals.
func stateKey(group, replica, url string) string {
	return strings.Join([]string{group, replica, url}, "\n")
}
