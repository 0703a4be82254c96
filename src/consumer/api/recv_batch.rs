//! Receiving batches of owned records.

use std::{future::poll_fn, sync::Mutex, task::Poll, time::Duration};

use tokio::{
    task::{coop::consume_budget, yield_now},
    time::{Instant, timeout_at},
};

use crate::consumer::{
    Consumer, PartitionStream, Records,
    api::{consumer::closed, records::UnreadReturn},
    background::shared::after,
    buffer::{
        fetch_buffer::FetchBuffer,
        record_reader::{RecordReader, RecordSlice},
    },
    lock::lock,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::ConsumerRecord,
};

impl Consumer {
    /// Receives up to `max` records that own their fields, and waits until that many are available,
    /// for `wait` at most. Then it returns the records that have arrived, perhaps none, which is no
    /// error. Meant for sinks that write many records at once: "a thousand, or what arrives within
    /// a second".
    ///
    /// The records of one partition are adjacent and in order. A batch is returned early and
    /// smaller if an error or the end of a partition follows its records, and if it would take a
    /// quarter of a broker's share of `queued.max.messages.kbytes`, or, decompressed, more room
    /// there than is left.
    ///
    /// Like with [`poll`](Self::poll), the records are done when the next ones are asked for; calls
    /// of [`recv`](Self::recv), [`poll`](Self::poll) and `recv_batch` may alternate.
    /// [`detach`](ConsumerRecord::detach) records that live long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// cluster.create_topic("orders", 1)?;
    /// let records = ["a", "b"].map(|value| Record::to("orders").with_value(value));
    /// cluster.append("orders", 0, &records)?;
    /// let consumer = cluster.consumer().build().await?;
    /// consumer.assign([(TopicPartition::new("orders", 0), Offset::Beginning)])?;
    ///
    /// let batch = consumer.recv_batch(2, Duration::from_secs(60)).await?; // full: no wait
    /// assert_eq!(batch.len(), 2);
    /// let batch = consumer.recv_batch(2, Duration::from_millis(20)).await?; // the two are done
    /// assert!(batch.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv), which are returned after the records before them;
    /// `InvalidArgument` for a `max` of 0; `Closed` once the consumer has ended.
    ///
    /// # Cancel safety
    /// Safe: no record is delivered before the future is ready, so dropping it loses none; the next
    /// call returns them. The previous records are done as soon as this is called.
    pub async fn recv_batch(&self, max: usize, wait: Duration) -> Result<Vec<ConsumerRecord>> {
        consume_budget().await;
        check_max(max)?;
        let buffer = &*self.shared.buffer;
        let one_reader = buffer.start_reading()?;
        lock(&self.shared.poll_stats).record_poll(Instant::now().into_std());
        let _alive = self.shared.group.as_ref().map(|group| group.begin_poll());
        if buffer.reader_should_yield() {
            yield_now().await;
        }
        match gather(buffer, buffer.common_reader(), max, wait).await {
            Some(Ok(portions)) if portions.is_empty() => Ok(Vec::new()),
            Some(Ok(portions)) => {
                let reading = one_reader.into_owned_guard();
                Ok(reading
                    .map_or_else(Vec::new, |reading| owned(&Records::new(portions, UnreadReturn::Common(reading)))))
            }
            Some(Err(error)) => Err(error),
            None => Err(closed()),
        }
    }
}

impl PartitionStream {
    /// Receives up to `max` records of the partition that own their fields, and waits until that
    /// many are available, for `wait` at most, like [`Consumer::recv_batch`]. `None` at the end.
    ///
    /// # Errors
    /// Those of [`recv`](Self::recv); `InvalidArgument` for a `max` of 0.
    ///
    /// # Cancel safety
    /// Safe, like [`Consumer::recv_batch`].
    pub async fn recv_batch(&mut self, max: usize, wait: Duration) -> Option<Result<Vec<ConsumerRecord>>> {
        consume_budget().await;
        if let Err(error) = check_max(max) {
            return Some(Err(error));
        }
        let asked = self.begin_poll().await?;
        let _alive = match asked {
            Ok(alive) => alive,
            Err(error) => return Some(Err(error)),
        };
        let (buffer, reader) = self.source();
        let next = gather(buffer, reader, max, wait).await;
        let Some(next) = next else {
            self.end();
            return None;
        };
        Some(next.map(|portions| match portions.is_empty() {
            true => Vec::new(),
            false => owned(&Records::new(portions, self.unread_return())),
        }))
    }
}

fn check_max(max: usize) -> Result<()> {
    match max {
        0 => Err(Error::new(
            ErrorKind::InvalidArgument,
            "recv_batch: a batch has at least one record, max must not be 0",
        )),
        _ => Ok(()),
    }
}

/// Returns all lent records as owned ones.
fn owned(lent: &Records) -> Vec<ConsumerRecord> {
    let mut records = Vec::with_capacity(lent.len());
    records.extend(lent.iter().map(|record| record.to_owned()));
    records
}

/// Waits until `max` records are available, and returns them; after `wait`, returns those that are
/// available. Returns `None` when the consumer or stream has ended.
///
/// # Cancel safety
/// Safe: the records are taken in the same poll in which the future is ready.
async fn gather(
    buffer: &FetchBuffer,
    reader: &Mutex<RecordReader>,
    max: usize,
    wait: Duration,
) -> Option<Result<Vec<RecordSlice>>> {
    let deadline = after(wait);
    loop {
        let mut gathered = None;
        let mut look =
            |cx: &mut std::task::Context<'_>| buffer.poll_full_batch(&mut lock(reader), max, &mut gathered, cx);
        let mut state = poll_fn(|cx| Poll::Ready(look(cx))).await;
        let mut in_time = true;
        // If enough records are available, no timer is needed.
        if state.is_pending() && wait.is_zero() {
            // A timer would take a millisecond at least.
            yield_now().await;
            state = poll_fn(|cx| Poll::Ready(look(cx))).await;
            in_time = false;
        } else if state.is_pending() {
            match timeout_at(deadline, poll_fn(&mut look)).await {
                Ok(ready) => state = Poll::Ready(ready),
                Err(_) => in_time = false,
            }
        }
        match state {
            Poll::Ready(None) => return None,
            Poll::Ready(Some(Err(error))) => return Some(Err(error)),
            Poll::Ready(Some(Ok(()))) | Poll::Pending => {}
        }
        match poll_fn(|cx| Poll::Ready(buffer.poll_slices(&mut lock(reader), max, cx))).await {
            Poll::Ready(portions) => return portions,
            Poll::Pending if !in_time => return Some(Ok(Vec::new())),
            // Data was available, but no record: the partition may have been revoked, or the log's
            // start may have moved.
            Poll::Pending => {}
        }
    }
}
