package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// keys is the number of different keys.
	keys = 10_000
	// stride is the number of records between two readings of the clock.
	stride = 256
)

// work is the command line.
type work struct {
	mode        string
	bootstrap   string
	topic       string
	compression string
	// level and batchSize are nil for the client's own default.
	level     *int
	batchSize *int32
	linger    time.Duration
	keyed     bool
	// rate is the number of records per second, for latency.
	rate uint64
	// transaction is the number of records in each transaction, for transact.
	transaction uint64
	warmup      time.Duration
	timed       time.Duration
	// records is the maximum number of records that are sent in one part, or read in all, whatever the time.
	records uint64
	// ca is the authority (a PEM file) that issued the broker's certificate; empty for no TLS.
	ca     string
	values [][]byte
	keys   [][]byte
}

func workFromArgs(args []string) (*work, error) {
	if len(args) == 0 || !slices.Contains([]string{"produce", "latency", "consume", "transact"}, args[0]) {
		return nil, fmt.Errorf("produce, latency, consume or transact, not %q", args)
	}
	w := &work{
		mode:        args[0],
		topic:       "perf",
		compression: "none",
		rate:        2_000,
		transaction: 100,
		warmup:      300 * time.Millisecond,
		timed:       1_500 * time.Millisecond,
		records:     math.MaxUint64,
	}
	if w.mode != "latency" {
		w.linger = 5 * time.Millisecond
	}
	size, partitions, file := 100, 1, ""
	for args = args[1:]; len(args) > 0; args = args[2:] {
		if len(args) == 1 {
			return nil, fmt.Errorf("%s wants a value", args[0])
		}
		var err error
		switch name, value := args[0], args[1]; name {
		case "--bootstrap-server":
			w.bootstrap = value
		case "--topic":
			w.topic = value
		case "--values":
			file = value
		case "--size":
			size, err = strconv.Atoi(value)
		case "--partitions":
			partitions, err = strconv.Atoi(value)
		case "--compression":
			w.compression = value
		case "--level":
			w.level, err = optional(value, strconv.Atoi)
		case "--batch-size":
			w.batchSize, err = optional(value, func(text string) (int32, error) {
				bytes, err := strconv.ParseInt(text, 10, 32)
				return int32(bytes), err
			})
		case "--keyed":
			w.keyed, err = strconv.ParseBool(value)
		case "--rate":
			w.rate, err = strconv.ParseUint(value, 10, 64)
		case "--transaction":
			w.transaction, err = strconv.ParseUint(value, 10, 64)
		case "--warmup":
			w.warmup, err = seconds(value)
		case "--seconds":
			w.timed, err = seconds(value)
		case "--records":
			w.records, err = strconv.ParseUint(value, 10, 64)
		case "--ca":
			w.ca = value
		case "--api":
			if value != "callback" {
				err = fmt.Errorf("unknown value %s", value)
			}
		default:
			err = fmt.Errorf("not known")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", args[0], err)
		}
	}
	if file == "" {
		return nil, fmt.Errorf("--values wants a file")
	}
	bytes, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if size <= 0 || partitions <= 0 || w.rate == 0 || w.transaction == 0 || w.records == 0 || len(bytes) < size {
		return nil, fmt.Errorf("nothing to send")
	}
	for ; len(bytes) >= size; bytes = bytes[size:] {
		w.values = append(w.values, bytes[:size:size])
	}
	for n := range keys {
		w.keys = append(w.keys, fmt.Appendf(nil, "%08d", n))
	}
	return w, nil
}

func optional[T any](text string, parse func(string) (T, error)) (*T, error) {
	if text == "default" {
		return nil, nil
	}
	value, err := parse(text)
	return &value, err
}

func seconds(text string) (time.Duration, error) {
	value, err := strconv.ParseFloat(text, 64)
	if err == nil && !(value >= 0 && value < 1e9) {
		err = fmt.Errorf("%s is no number of seconds", text)
	}
	return time.Duration(value * float64(time.Second)), err
}

func (w *work) value(n uint64) []byte { return w.values[n%uint64(len(w.values))] }

func (w *work) key(n uint64) []byte { return w.keys[n%keys] }

// scheduled returns the number of records that latency sends in that time.
func (w *work) scheduled(span time.Duration) uint64 {
	return min(max(uint64(span.Seconds()*float64(w.rate)), 1), w.records)
}

// waitUntilDue waits, as a thread, until the nth record is due. It returns the time from which its latency counts: that
// of the call or, if the sender is behind its schedule, the time at which the record was due.
func (w *work) waitUntilDue(start time.Time, n uint64) time.Time {
	due := start.Add(time.Duration(n * uint64(time.Second) / w.rate))
	left := time.Until(due)
	if left <= 0 {
		return due
	}
	for ; left > 0; left = time.Until(due) {
		span := syscall.NsecToTimespec(left.Nanoseconds())
		// A signal ends the sleep early; the loop then sleeps again.
		_ = syscall.Nanosleep(&span, nil)
	}
	return time.Now()
}
