//! Records as a stream.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use crate::consumer::{background::shared::Shared, buffer::fetch_buffer::ReadGuard, group};
use crate::{error::Result, record::ConsumerRecord};

/// Number of records returned in a row without waiting after which other tasks get a turn.
const BURST: u32 = 128;

/// The stream of [`Consumer::stream`](crate::consumer::Consumer::stream). Ends when the consumer
/// does.
#[must_use = "streams do nothing unless polled"]
pub struct RecordStream<'a> {
    shared: &'a Shared,
    /// Set by the first poll.
    one_reader: Option<ReadGuard<'a>>,
    /// Set while the stream waits for a record.
    alive: Option<group::PollGuard<'a>>,
    burst: u32,
    ended: bool,
}

impl<'a> RecordStream<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared, one_reader: None, alive: None, burst: 0, ended: false }
    }
}

impl Stream for RecordStream<'_> {
    type Item = Result<ConsumerRecord>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let buffer = &*this.shared.buffer;
        if this.one_reader.is_none() {
            match buffer.start_reading() {
                Ok(reading) => this.one_reader = Some(reading),
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        } else {
            buffer.complete_delivered();
        }
        this.burst += 1;
        if this.burst > BURST {
            this.burst = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let group = this.shared.group.as_ref();
        if let Some(group) = group {
            group.record_poll();
        }
        let next = buffer.poll_record(&mut buffer.reader(), cx);
        match &next {
            Poll::Pending => {
                this.burst = 0;
                if this.alive.is_none() {
                    this.alive = group.map(|group| group.begin_poll());
                }
            }
            Poll::Ready(record) => {
                this.alive = None;
                this.ended = record.is_none();
            }
        }
        next
    }
}

impl fmt::Debug for RecordStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}
