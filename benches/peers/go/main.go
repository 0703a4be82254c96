// Runs the work through franz-go: Produce, results by promise. Command line and output are those of runners/common.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
)

const client = "franz-go"

func main() {
	line, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	fmt.Println(line)
}

func run() (string, error) {
	w, err := workFromArgs(os.Args[1:])
	if err != nil {
		return "", err
	}
	switch w.mode {
	case "consume":
		return consume(w)
	case "transact":
		return transact(w)
	}
	opts, err := options(w)
	if err != nil {
		return "", err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return "", err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return "", err
	}
	if w.mode == "latency" {
		return latency(w, cl)
	}
	if _, err := produce(w, cl, w.warmup); err != nil {
		return "", err
	}
	clock := startClock()
	sent, err := produce(w, cl, w.timed)
	if err != nil {
		return "", err
	}
	return clock.stop(client, version(), sent).line()
}

// options returns the client's options. The producer is idempotent by default, and has five requests in flight; with an
// option for either it would refuse to start, or have fewer.
func options(w *work) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(w.bootstrap, ",")...),
		kgo.ClientID("peers"),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(w.linger),
		// The default of the other clients; franz-go's is no limit.
		kgo.RecordDeliveryTimeout(2 * time.Minute),
	}
	codec, err := codec(w.compression, w.level)
	if err != nil {
		return nil, err
	}
	opts = append(opts, kgo.ProducerBatchCompression(codec))
	if w.batchSize != nil {
		opts = append(opts, kgo.ProducerBatchMaxBytes(*w.batchSize))
	}
	secure, err := overTLS(w)
	return append(opts, secure...), err
}

// overTLS returns the TLS options, or none without --ca. The host name that is verified is that of the address.
func overTLS(w *work) ([]kgo.Opt, error) {
	if w.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(w.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca %s: there is no certificate in it", w.ca)
	}
	return []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13})}, nil
}

// codec translates the level from the scale of the codec's own library, which the other clients use. franz-go would
// take it for another level, or silently for the default.
func codec(name string, level *int) (kgo.CompressionCodec, error) {
	codec, known := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}[name]
	if !known {
		return codec, fmt.Errorf("unknown compression %s", name)
	}
	if level == nil || name == "none" || name == "snappy" {
		return codec, nil
	}
	if name == "zstd" {
		return codec.WithLevel(int(zstd.EncoderLevelFromZstd(*level))), nil
	}
	if *level < 1 || *level > 9 {
		return codec, fmt.Errorf("--level %d: %s has 1 to 9", *level, name)
	}
	if name == "lz4" {
		return codec.WithLevel(1 << (8 + *level)), nil
	}
	return codec.WithLevel(*level), nil
}

func record(w *work, n uint64) *kgo.Record {
	r := &kgo.Record{Topic: w.topic, Value: w.value(n)}
	if w.keyed {
		r.Key = w.key(n)
	}
	return r
}

// results counts the results of records.
type results struct {
	delivered, failed atomic.Uint64
	first             atomic.Pointer[error]
}

func (r *results) promise(_ *kgo.Record, err error) {
	if err == nil {
		r.delivered.Add(1)
		return
	}
	r.failed.Add(1)
	r.first.CompareAndSwap(nil, &err)
}

// check returns an error unless all of the sent records are delivered.
func (r *results) check(sent uint64) error {
	if err := r.first.Load(); err != nil {
		return fmt.Errorf("%d sent, %d delivered, %d failed: %w", sent, r.delivered.Load(), r.failed.Load(), *err)
	}
	if r.delivered.Load() != sent {
		return fmt.Errorf("%d sent, %d delivered", sent, r.delivered.Load())
	}
	return nil
}

// produce sends for that long, and waits until every record has its result.
func produce(w *work, cl *kgo.Client, span time.Duration) (uint64, error) {
	var counted results
	promise := counted.promise
	ctx := context.Background()
	sent := uint64(0)
	for end := time.Now().Add(span); sent < w.records && (sent%stride != 0 || time.Now().Before(end)); sent++ {
		// Waits while the buffer is full.
		cl.Produce(ctx, record(w, sent), promise)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	flushed := cl.Flush(ctx)
	return sent, errors.Join(counted.check(sent), flushed)
}

// latency sends from a thread of its own, which sleeps by a system call, because the runtime's sleep is precise only to
// a millisecond.
func latency(w *work, cl *kgo.Client) (string, error) {
	runtime.LockOSThread()
	if _, err := paced(w, cl, w.scheduled(w.warmup)); err != nil {
		return "", err
	}
	clock := startClock()
	latencies, err := paced(w, cl, w.scheduled(w.timed))
	if err != nil {
		return "", err
	}
	outcome := clock.stop(client, version(), uint64(len(latencies)))
	outcome.latencies = latencies
	return outcome.line()
}

func paced(w *work, cl *kgo.Client, count uint64) ([]time.Duration, error) {
	type result struct {
		n   uint64
		at  time.Time
		err error
	}
	ends := make(chan result, count)
	from := make([]time.Time, count)
	start := time.Now()
	for n := range count {
		from[n] = w.waitUntilDue(start, n)
		// Does not wait for room in the buffer, because that would hide its delay.
		cl.TryProduce(context.Background(), record(w, n), func(_ *kgo.Record, err error) {
			ends <- result{n, time.Now(), err}
		})
	}
	latencies := make([]time.Duration, 0, count)
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for range count {
		select {
		case end := <-ends:
			if end.err != nil {
				return nil, fmt.Errorf("a record was not delivered: %w", end.err)
			}
			latencies = append(latencies, end.at.Sub(from[end.n]))
		case <-timeout.C:
			return nil, errors.New("a record has no result after a minute")
		}
	}
	return latencies, nil
}

// version returns the version of franz-go in this binary.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/twmb/franz-go" {
				return strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return "unknown"
}
