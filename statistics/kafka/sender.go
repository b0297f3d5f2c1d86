package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"clearmlserving/retry"
	"clearmlserving/serving"
	"clearmlserving/statistics"
	"clearmlserving/statistics/message"
)

const (
	sendEvery    = time.Second
	spillAfter   = 5 * time.Second // Kafka has not acknowledged for that long
	openWithin   = 20 * time.Second
	stopWithin   = 3 * time.Second // to send what is left
	maxLaneCount = 16384           // unread samples of one lane
	maxLaneBytes = 8 << 20         // of their variables
	maxMessage   = 256 << 10       // bytes of a message with several records
	maxRecord    = 900 << 10       // bytes of one record: brokers take 1 MB by default
)

// lostReasons are the reasons why a record is not sent.
var lostReasons = []string{"memory", "queue_full", "disk", "too_large", "unreadable"} //nolint:gochecknoglobals // a constant table

// SenderOptions are the options of a Sender.
type SenderOptions struct {
	// Lanes is the number of lanes that Forward gets.
	Lanes int
	// Servers are the brokers of services whose parameters name none, "" for none.
	Servers string
	Access  Access
	// Dir has the queue while Kafka is away. "": nothing is stored.
	Dir    string
	Logger *slog.Logger
}

// Sender sends the sampled requests of an instance to Kafka. A request never waits for it: what does
// not fit is lost, and counted.
type Sender struct {
	o      SenderOptions
	active atomic.Bool
	began  time.Time
	lanes  []lane
	away   atomic.Bool   // Kafka does not take messages; that is logged
	full   atomic.Uint64 // requests lost because a lane was full: they do not wait for mu, which is held while files are written
	half   chan struct{} // has one signal: a lane is half full
	work   chan struct{} // has one signal: the queue has messages
	to     brokers

	mu    sync.Mutex // guards the fields below
	queue queue
	sent  uint64
	lost  map[string]uint64 // for other reasons
}

// lane is mostly used by one core.
type lane struct {
	mu    sync.Mutex
	list  []pending
	bytes int
	_     [64]byte // the next lane is in another cache line
}

// pending is a sample that no message has yet.
type pending struct {
	at        time.Duration
	url       serving.EndpointURL
	latency   time.Duration
	weight    float64
	variables []byte
}

// NewSender returns a Sender, which sends while Run runs.
func NewSender(o SenderOptions) *Sender {
	s := &Sender{
		o: o, began: time.Now(), lanes: make([]lane, max(o.Lanes, 1)), half: make(chan struct{}, 1), work: make(chan struct{}, 1),
		lost: map[string]uint64{},
	}
	for _, reason := range lostReasons {
		s.lost[reason] = 0
	}
	s.Use("")
	return s
}

// Use sets the brokers that the service names, "" for the default of the instance.
func (s *Sender) Use(servers string) {
	servers = cmp.Or(servers, s.o.Servers)
	s.active.Store(servers != "")
	s.to.use(servers)
}

// Forward implements statistics.Forwarder.
func (s *Sender) Forward(number int, one serving.Sample) {
	if !s.active.Load() {
		return
	}
	l := &s.lanes[number%len(s.lanes)]
	at := time.Since(s.began)
	l.mu.Lock()
	if len(l.list) >= maxLaneCount || l.bytes+len(one.Variables) > maxLaneBytes {
		l.mu.Unlock()
		s.full.Add(1)
		return
	}
	l.list = append(l.list, pending{at, one.URL, one.Latency, one.Weight, one.Variables})
	l.bytes += len(one.Variables)
	half := len(l.list) == maxLaneCount/2 || l.bytes >= maxLaneBytes/2
	l.mu.Unlock()
	if half {
		select {
		case s.half <- struct{}{}:
		default:
		}
	}
}

func (s *Sender) lose(reason string, records int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost[reason] += uint64(records)
}

// Forwarding implements statistics.Forwarder.
func (s *Sender) Forwarding() statistics.Forwarding {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := maps.Clone(s.lost)
	lost["memory"] += s.full.Load()
	return statistics.Forwarding{
		Active: s.active.Load(), Sent: s.sent, Lost: lost, Waiting: int64(s.queue.waiting()), Stored: s.queue.stored,
	}
}

// Run sends until ctx ends. It then tries to send the rest, and stores what it could not send.
func (s *Sender) Run(ctx context.Context) {
	unlock := s.openQueue()
	defer unlock()
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var sender sync.WaitGroup
	sender.Go(func() { s.send(sending) })
	s.collect(ctx)
	s.finish(stop)
	sender.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.close()
}

// finish waits until everything is sent, for a bounded time.
func (s *Sender) finish(stop context.CancelFunc) {
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	for s.active.Load() && retry.Sleep(ctx, 10*time.Millisecond) == nil {
		s.mu.Lock()
		empty := len(s.queue.memory)+len(s.queue.flight)+len(s.queue.files) == 0
		s.mu.Unlock()
		if empty {
			return
		}
	}
}

// openQueue opens the folder of the queue. A folder that another process uses is left alone: this
// one then has its queue in memory only.
func (s *Sender) openQueue() (unlock func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.lost = func(reason string, records int) { s.lost[reason] += uint64(records) }
	s.queue.fail = func(err error) { s.o.Logger.Warn("statistics queue not stored", "dir", s.o.Dir, "err", err) }
	if s.o.Dir == "" {
		return func() {}
	}
	lock, err := lockFolder(s.o.Dir)
	if err != nil {
		s.o.Logger.Warn("statistics queue is in memory only", "dir", s.o.Dir, "err", err)
		return func() {}
	}
	s.queue.dir = s.o.Dir
	if err := s.queue.open(); err != nil {
		s.queue.fail(err)
	}
	if n := s.queue.waiting(); n > 0 {
		s.o.Logger.Info("statistics of the last run are sent", "requests", n)
		s.wake()
	}
	return func() { _ = lock.Close() } // a lock needs no flush
}

func lockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errors.New("another process uses the folder"), err, f.Close())
	}
	return f, nil
}

func (s *Sender) wake() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// collect makes messages of samples until ctx ends.
func (s *Sender) collect(ctx context.Context) {
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	spilled := time.Now()
	for {
		ended := false
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		case <-s.half:
		}
		packets := s.pack()
		s.mu.Lock()
		before := len(s.queue.memory)
		for _, p := range packets {
			s.queue.put(p)
		}
		// A chunk is acknowledged within milliseconds. If older messages are still there, Kafka is away.
		late := false
		switch {
		case before == 0:
			spilled = time.Now()
		case time.Since(spilled) > spillAfter:
			late = true
			s.queue.spill()
			spilled = time.Now()
		}
		s.mu.Unlock()
		if late && s.active.Load() {
			s.notSent(errLate) // a client that was connected tries again without an error
		}
		s.wake()
		if ended {
			return
		}
	}
}

var errLate = fmt.Errorf("the brokers have acknowledged nothing for %s", spillAfter)

// notSent logs that Kafka does not take messages, once until it takes one.
func (s *Sender) notSent(err error) {
	if !s.away.Swap(true) {
		s.o.Logger.Warn("statistics not sent", "effect", "they are sent later", "err", err)
	}
}

// pack makes messages of all samples: of each endpoint separate ones, so that the messages of an endpoint
// stay in order.
func (s *Sender) pack() (packets []packet) {
	var all []pending
	for i := range s.lanes {
		l := &s.lanes[i]
		l.mu.Lock()
		all = append(all, l.list...)
		clear(l.list)
		l.list, l.bytes = l.list[:0], 0
		l.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b pending) int { return cmp.Or(cmp.Compare(a.url, b.url), cmp.Compare(a.at, b.at)) })
	for len(all) > 0 {
		p := packet{Key: string(all[0].url)}
		for len(all) > 0 && string(all[0].url) == p.Key {
			one := all[0]
			if p.Records > 0 && len(p.Value)+len(one.variables)+len(one.url)+100 > maxMessage {
				break
			}
			all = all[1:]
			if len(one.variables) > maxRecord {
				s.lose("too_large", 1)
				continue
			}
			value, err := message.AppendRecord(p.Value, one.url, one.latency, one.weight, one.variables)
			if err != nil {
				s.lose("unreadable", 1)
				continue
			}
			p.Value = value
			p.Records++
		}
		if p.Records > 0 {
			p.Value = message.AppendEnd(p.Value)
			packets = append(packets, p)
		}
	}
	return packets
}

// send sends the messages of the queue in their order until ctx ends.
func (s *Sender) send(ctx context.Context) {
	for ctx.Err() == nil {
		connection, servers, end := s.to.connection(ctx)
		if servers == "" {
			<-connection.Done()
		} else {
			s.sendTo(connection, servers)
		}
		end()
	}
}

// sendTo sends the messages of the queue to these brokers until ctx ends.
func (s *Sender) sendTo(ctx context.Context, servers string) {
	var client *kgo.Client
	var stop func() bool
	disconnect := func() {
		if client != nil {
			stop()
			client.Close()
			client = nil
		}
	}
	defer disconnect()
	for failures := 0; ; {
		s.mu.Lock()
		chunk := s.queue.next()
		s.mu.Unlock()
		if len(chunk) == 0 {
			select {
			case <-ctx.Done():
			case <-s.work:
				continue
			}
		}
		var err error
		if client == nil && ctx.Err() == nil {
			if client, err = s.open(ctx, servers); err == nil {
				// Closing also ends the wait for brokers that took a message and do not answer.
				stop = context.AfterFunc(ctx, client.Close)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if err = s.deliver(ctx, client, chunk); err != nil {
				// A client does not use a topic that was removed and created again, as that of a Kafka that has lost
				// its disk. A new one does.
				disconnect()
			}
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			if s.away.Swap(false) {
				s.o.Logger.Info("statistics are sent again", "kafka", servers)
			}
		default:
			failures++
			s.notSent(fmt.Errorf("%s: %w", servers, err))
			if retry.Sleep(ctx, retry.Jittered(retry.Doubled(failures, 500*time.Millisecond, 10*time.Second))) != nil {
				return
			}
		}
	}
}

// open connects to the brokers and creates the topic unless it exists.
func (s *Sender) open(ctx context.Context, servers string) (*kgo.Client, error) {
	options, err := connect(servers, s.o.Access, s.o.Logger)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(options,
		kgo.DefaultProduceTopic(message.Topic), kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(maxRecord+64<<10), kgo.MaxBufferedRecords(1<<20))...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	if err := ensureTopic(ctx, client, message.Topic, partitions, nil); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// deliver sends the messages in flight. Those that are not acknowledged stay in flight.
func (s *Sender) deliver(ctx context.Context, client *kgo.Client, chunk []packet) error {
	all := make([]*kgo.Record, len(chunk))
	for i, p := range chunk {
		all[i] = &kgo.Record{Key: []byte(p.Key), Value: p.Value}
	}
	results := client.ProduceSync(ctx, all...)
	failed := map[*kgo.Record]error{}
	var first error
	for _, r := range results {
		if r.Err != nil {
			failed[r.Record] = r.Err
		}
	}
	var left []packet
	sent, tooLarge, unreadable := 0, 0, 0
	for i, p := range chunk {
		err := failed[all[i]]
		switch {
		case err == nil:
			sent += p.Records
		case !errors.Is(err, kerr.MessageTooLarge) && !errors.Is(err, kerr.RecordListTooLarge):
			left, first = append(left, p), cmp.Or(first, err)
		case p.Records == 1:
			tooLarge++
		default:
			parts, err := halves(p)
			if err != nil { // of a damaged file: it would be sent again without end
				unreadable += p.Records
			}
			left = append(left, parts...)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent += uint64(sent)
	s.lost["too_large"] += uint64(tooLarge)
	s.lost["unreadable"] += uint64(unreadable)
	s.queue.done(left)
	return first
}

// halves splits a message that the broker does not take.
func halves(p packet) ([]packet, error) {
	first, second, err := message.Halves(p.Value)
	if err != nil {
		return nil, err
	}
	n := p.Records / 2
	return []packet{{p.Key, first, n}, {p.Key, second, p.Records - n}}, nil
}
