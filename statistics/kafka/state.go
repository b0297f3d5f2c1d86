package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"clearmlserving/serving"
	"clearmlserving/statistics"
)

// StateTopic has the counts of all Readers. It has one partition.
const StateTopic = "clearml_serving_statistics_state"

const (
	maxState   = 8 << 20 // bytes of a stored value
	loadWithin = 2 * time.Minute
)

// stateSettings are those of the topic: of each key the last value is kept.
func stateSettings() map[string]*string {
	settings := map[string]*string{}
	for name, value := range map[string]string{
		"cleanup.policy": "compact", "max.message.bytes": fmt.Sprint(maxState), "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1",
	} {
		settings[name] = &value
	}
	return settings
}

// markURL is the key of a value that a Reader stores when it begins. No endpoint has it.
const markURL = "/"

// loadCounts reads the counts that a replica has stored before its mark, and the positions up to which all
// replicas have counted. It waits for the open transactions of others before that. Counts that cannot be
// read begin at 0, so that they do not stop the others.
func loadCounts(ctx context.Context, options []kgo.Opt, group, replica string, mark int64, log *slog.Logger) (loaded counts, next map[int32]int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	loaded, next = newCounts(), map[int32]int64{}
	client, err := kgo.NewClient(append(slices.Clip(options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{StateTopic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		return loaded, nil, err
	}
	defer client.Close()
	prefix, ofGroup := stateKey(group, replica, ""), group+"\n"
	values := map[string][]byte{}
	for marked := false; !marked; {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return loaded, nil, err
		}
		fetched.EachRecord(func(r *kgo.Record) {
			marked = marked || r.Offset >= mark
			if strings.HasPrefix(string(r.Key), ofGroup) && strings.HasSuffix(string(r.Key), "\n") {
				var of totals
				_ = json.Unmarshal(r.Value, &of) // one that cannot be read is logged below if it is ours
				for p, n := range of.Next {
					next[p] = max(next[p], n)
				}
			}
			if url, ours := strings.CutPrefix(string(r.Key), prefix); ours && url != markURL {
				values[url] = r.Value
			}
		})
	}
	for url, value := range values {
		if value == nil {
			continue
		}
		var err error
		if url == "" {
			read := newCounts().totals
			if err = json.Unmarshal(value, &read); err == nil {
				loaded.totals = read
			}
		} else {
			a := &statistics.Aggregate{}
			if err = json.Unmarshal(value, a); err == nil {
				loaded.endpoints[serving.EndpointURL(url)] = a
			}
		}
		if err != nil {
			log.Error("stored counts cannot be read, they begin at 0", "endpoint", url, "topic", StateTopic, "err", err)
		}
	}
	return loaded, next, nil
}
