package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// stalled is the time without a record after which a reader has failed.
const stalled = 20 * time.Second

// tally has the sums over the values that a reader has read; the driver knows the expected ones.
type tally struct{ records, bytes, firsts uint64 }

func (t *tally) lookAt(value []byte) {
	t.records++
	t.bytes += uint64(len(value))
	if len(value) > 0 {
		t.firsts += uint64(value[0])
	}
}

// consume reads by PollFetches, without a group; checksums are compared by default.
func consume(w *work) (string, error) {
	secure, err := overTLS(w)
	if err != nil {
		return "", err
	}
	cl, err := kgo.NewClient(append(secure,
		kgo.SeedBrokers(strings.Split(w.bootstrap, ",")...),
		kgo.ClientID("peers"),
		kgo.ConsumeTopics(w.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)...)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	// At most half of a log with an end is read before the clock starts, so that the other half is timed.
	warmed, err := read(cl, w.warmup, w.records/2)
	if err != nil {
		return "", err
	}
	clock := startClock()
	t, err := read(cl, w.timed, w.records-min(w.records, warmed.records))
	if err != nil {
		return "", err
	}
	outcome := clock.stop(client, version(), t.records)
	outcome.tally = &t
	return outcome.line()
}

func read(cl *kgo.Client, span time.Duration, most uint64) (tally, error) {
	var t tally
	ctx, cancel := context.WithTimeout(context.Background(), span+stalled)
	defer cancel()
	for end := time.Now().Add(span); t.records < most && time.Now().Before(end); {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return t, fmt.Errorf("after %d records: %w", t.records, err)
		}
		fetches.EachRecord(func(r *kgo.Record) { t.lookAt(r.Value) })
	}
	return t, nil
}
