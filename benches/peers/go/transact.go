package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// transact sends in transactions: Produce, results by promise, Flush and EndTransaction.
func transact(w *work) (string, error) {
	opts, err := options(w)
	if err != nil {
		return "", err
	}
	cl, err := kgo.NewClient(append(opts, kgo.TransactionalID("peers-franz-go"))...)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	if _, _, err := committed(w, cl, w.warmup); err != nil {
		return "", err
	}
	clock := startClock()
	sent, latencies, err := committed(w, cl, w.timed)
	if err != nil {
		return "", err
	}
	outcome := clock.stop(client, version(), sent)
	outcome.latencies = latencies
	return outcome.line()
}

// committed commits one transaction after the other for that long; it returns the number of records, and the latency of
// each commit.
func committed(w *work, cl *kgo.Client, span time.Duration) (uint64, []time.Duration, error) {
	var latencies []time.Duration
	var counted results
	promise := counted.promise
	sent := uint64(0)
	for end := time.Now().Add(span); sent < w.records && time.Now().Before(end); {
		if err := cl.BeginTransaction(); err != nil {
			return 0, nil, err
		}
		for upTo := min(sent+w.transaction, w.records); sent < upTo; sent++ {
			// Waits while the buffer is full.
			cl.Produce(context.Background(), record(w, sent), promise)
		}
		since := time.Now()
		if err := commit(cl, &counted, sent); err != nil {
			return 0, nil, err
		}
		latencies = append(latencies, time.Since(since))
	}
	return sent, latencies, nil
}

// commit flushes and commits. EndTransaction does not flush, and leaves it to the program to look at the results.
func commit(cl *kgo.Client, results *results, sent uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := results.check(sent); err != nil {
		return err
	}
	return cl.EndTransaction(ctx, kgo.TryCommit)
}
