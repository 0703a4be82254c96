//! The reader's side: what it took over, what it holds in its hands, and what it is done with.
//!
//! There is one reader at a time, beside those of partitions that are split off. Its lock is taken
//! for each record that `recv` gives, by nobody else but for a moment (a seek, a rebalance), and
//! before the assignment's lock, never inside of it.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    assignment::Assignment,
    gathered::Gathered,
    inbox::Inbox,
    lease::Lease,
    part::{Opening, Part},
    queue::{GROWTH, Taken},
    split::SplitId,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{ConsumerRecord, Header, TopicPartition},
    wire::batch::{Decompressor, RecordView},
};

/// A part of which so many records are handed out at once.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) part: Part,
    pub(super) count: usize,
}

/// What the assignment had for the reader.
enum Refill {
    Some,
    Error(Error),
    Ended,
    Nothing,
}

#[derive(Debug)]
pub(super) struct Reader {
    /// The partition that it reads; without one, all that have no reader of their own.
    of: Option<SplitId>,
    /// What was taken over and is not handed out yet.
    pending: VecDeque<Taken>,
    /// Of the records that were handed out last.
    leases: Vec<Arc<Lease>>,
    /// Whether the reader still holds them.
    holding: bool,
    /// What another reader held of its partition counts as in its hand until it has given a record
    /// of its own, or its end.
    inherits: bool,
    /// A poll's records are held.
    pub(super) lent: bool,
    /// It says by itself what it is done with (see `hand`).
    by_hand: bool,
    /// Took something over since it was last asked whether it did.
    refilled: bool,
    /// Records that were given.
    given: u64,
    /// Of these, those that are not counted for their partition yet: of the lease that is held.
    uncounted: u64,
    /// About how many times their size compressed batches become of late, when they are opened.
    growth: usize,
    /// Kept for its room.
    taken: Vec<Taken>,
    decompressor: Decompressor,
    opening: Opening,
}

impl Reader {
    pub(super) fn new(opening: Opening, of: Option<SplitId>) -> Self {
        Self {
            of,
            pending: VecDeque::new(),
            leases: Vec::new(),
            holding: false,
            inherits: false,
            lent: false,
            by_hand: false,
            refilled: false,
            given: 0,
            uncounted: 0,
            growth: GROWTH,
            taken: Vec::new(),
            decompressor: Decompressor::default(),
            opening,
        }
    }

    /// From now on it is done with a record when it says so, and not when it asks for the next one.
    pub(super) fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// What another reader holds of its partition is in its hand from now on, if that holds
    /// anything.
    pub(super) fn inherits(mut self, inherits: bool) -> Self {
        self.inherits = inherits;
        self
    }

    /// The reader asks for the next records, or closes: it is done with those that it holds.
    pub(super) fn finish(&mut self) {
        if !self.by_hand && std::mem::take(&mut self.holding) {
            for lease in &self.leases {
                lease.finish();
            }
        }
    }

    /// Whether the reader holds records of that partition.
    pub(super) fn holds(&self, partition: &TopicPartition) -> bool {
        let inherited = self.inherits && self.of.as_ref().is_some_and(|of| of.partition == *partition);
        let of_it = |lease: &Arc<Lease>| lease.partition() == partition && self.is_held(lease);
        inherited || self.holding && self.leases.iter().any(of_it)
    }

    /// Whether the reader holds anything.
    pub(super) fn holds_any(&self) -> bool {
        self.inherits || self.holding && self.leases.iter().any(|lease| self.is_held(lease))
    }

    fn is_held(&self, lease: &Lease) -> bool {
        !self.by_hand || lease.done() < lease.handed()
    }

    /// The reader no longer holds what it holds of that partition, without being done with it.
    pub(super) fn let_go(&mut self, partition: &TopicPartition) {
        count(&self.leases, &mut self.uncounted, &mut self.given);
        self.leases.retain(|lease| lease.partition() != partition);
    }

    /// The next record, sharing the bytes of its batch. `None` at the end.
    pub(super) fn poll_record(&mut self, inbox: &Inbox, cx: &mut Context<'_>) -> Poll<Option<Result<ConsumerRecord>>> {
        loop {
            if let Some(record) = self.give() {
                return Poll::Ready(Some(Ok(record)));
            }
            if let Some(next) = self.pending.pop_front() {
                if let Some(error) = self.pass(next, inbox) {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            match self.refill(1, inbox, Some(cx)) {
                Refill::Some => {}
                Refill::Error(error) => return Poll::Ready(Some(Err(error))),
                Refill::Ended => return Poll::Ready(None),
                Refill::Nothing => return Poll::Pending,
            }
        }
    }

    /// The next record of the batch in front, if one is open there and has one.
    fn give(&mut self) -> Option<ConsumerRecord> {
        let Some(Taken::Open(part)) = self.pending.front_mut() else { return None };
        if part.left == 0 || part.lease.is_withheld() {
            return None;
        }
        let mut iter = part.iter();
        match iter.next() {
            Some(Ok(view)) => {
                let record = owned(part, &view);
                part.position = iter.position();
                part.left -= 1;
                part.lease.hand_out(record.offset + 1);
                self.holding = true;
                self.inherits = false;
                if !matches!(&self.leases[..], [held] if Arc::ptr_eq(held, &part.lease)) {
                    count(&self.leases, &mut self.uncounted, &mut self.given);
                    self.leases.clear();
                    self.leases.push(part.lease.clone());
                }
                self.uncounted += 1;
                Some(record)
            }
            Some(Err(error)) => {
                let (lease, end) = (part.lease.clone(), part.end);
                self.pending.pop_front();
                self.pending.push_front(Taken::Broken { lease, error, end });
                None
            }
            None => {
                part.left = 0;
                None
            }
        }
    }

    /// The next records, of one lease: waits for the first of them, and takes those behind it that
    /// are there, up to `max` and until they are so many bytes. `None` at the end.
    pub(super) fn poll_owned(
        &mut self,
        max: usize,
        bytes: usize,
        inbox: &Inbox,
        cx: &mut Context<'_>,
        out: &mut Vec<ConsumerRecord>,
    ) -> Poll<Option<Result<Arc<Lease>>>> {
        let first = match self.poll_record(inbox, cx) {
            Poll::Ready(Some(Ok(record))) => record,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let Some(lease) = self.leases.last().cloned() else { return Poll::Ready(None) };
        let mut left = bytes.saturating_sub(first.size());
        out.push(first);
        while out.len() < max && left > 0 {
            match self.pending.front().map(|next| Arc::ptr_eq(next.lease(), &lease)) {
                None if matches!(self.refill(max - out.len(), inbox, None), Refill::Some) => continue,
                Some(true) => {}
                _ => break,
            }
            if let Some(record) = self.give() {
                left = left.saturating_sub(record.size());
                out.push(record);
                continue;
            }
            // What holds no record, and trouble, come with the next call.
            if !matches!(self.pending.front(), Some(Taken::Raw { .. })) {
                break;
            }
            if let Some(next) = self.pending.pop_front() {
                let opened = self.open(next);
                self.pending.push_front(opened);
            }
        }
        Poll::Ready(Some(Ok(lease)))
    }

    /// Up to `max` records, as long as there is room for what they are decompressed to, but those
    /// of one batch at least; the portions of one partition side by side and in order. `None` at
    /// the end.
    pub(super) fn poll_portions(
        &mut self,
        max: usize,
        inbox: &Inbox,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Vec<Portion>>>> {
        let mut portions: Vec<Portion> = Vec::new();
        let mut count = 0;
        loop {
            while count < max
                && let Some(next) = self.pending.pop_front()
            {
                match next {
                    next if next.lease().is_withheld() => {}
                    Taken::Open(part) if part.left > 0 => {
                        let portion = Portion { count: part.left.min(max - count), part };
                        count += portion.count;
                        let same = |other: &Portion| Arc::ptr_eq(&other.part.lease, &portion.part.lease);
                        let at = portions.iter().rposition(same).map_or(portions.len(), |last| last + 1);
                        portions.insert(at, portion);
                    }
                    // The next poll opens it, when these are done.
                    next @ Taken::Raw { .. } if count > 0 && !self.has_room_to_open(&next) => {
                        self.pending.push_front(next);
                        return self.hold(portions);
                    }
                    Taken::Raw { .. } => {
                        let opened = self.open(next);
                        self.pending.push_front(opened);
                    }
                    // What is only passed over belongs to the records before it.
                    Taken::Skip { lease, end } if count > 0 => {
                        match portions.iter_mut().rev().find(|portion| Arc::ptr_eq(&portion.part.lease, &lease)) {
                            Some(portion) => portion.part.end = end,
                            None => self.skip(&lease, end),
                        }
                    }
                    // Trouble comes behind the records before it.
                    trouble @ (Taken::Broken { .. } | Taken::OutOfRange { .. } | Taken::End { .. }) if count > 0 => {
                        self.pending.push_front(trouble);
                        return self.hold(portions);
                    }
                    next => {
                        if let Some(error) = self.pass(next, inbox) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
            }
            if count >= max {
                return self.hold(portions);
            }
            let waiting = if count == 0 { Some(&mut *cx) } else { None };
            match self.refill(max - count, inbox, waiting) {
                Refill::Some => {}
                Refill::Error(error) => return Poll::Ready(Some(Err(error))),
                Refill::Ended => return Poll::Ready(None),
                Refill::Nothing if count == 0 => return Poll::Pending,
                Refill::Nothing => return self.hold(portions),
            }
        }
    }

    /// Takes over batches until `records` are there, and hands out none of them: they stay with the
    /// reader for whichever call asks next. Ready earlier where more would not help, see
    /// [`Gathered::is_enough`]. `None` at the end.
    pub(super) fn poll_gathered(
        &mut self,
        records: usize,
        gathered: &mut Option<Gathered>,
        inbox: &Inbox,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<()>>> {
        let mut known = match gathered.take() {
            Some(known) => known,
            None => self.survey(0),
        };
        loop {
            if known.is_enough(records) {
                // Some of it may have been taken away meanwhile (by a seek, by the group).
                known = self.survey(0);
                if known.is_enough(records) {
                    return Poll::Ready(Some(Ok(())));
                }
            }
            let before = self.pending.len();
            match self.refill(known.missing(records), inbox, Some(&mut *cx)) {
                Refill::Some => known.merge(self.survey(before)),
                Refill::Error(error) => return Poll::Ready(Some(Err(error))),
                Refill::Ended => return Poll::Ready(None),
                Refill::Nothing => {
                    *gathered = Some(known);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Counts the records that wait to be handed out, from that entry on.
    fn survey(&self, from: usize) -> Gathered {
        let mut gathered = Gathered::default();
        self.pending
            .iter()
            .skip(from)
            .filter(|pending| !pending.lease().is_withheld())
            .for_each(|pending| gathered.add(pending));
        gathered
    }

    /// The reader now holds all of these.
    fn hold(&mut self, portions: Vec<Portion>) -> Poll<Option<Result<Vec<Portion>>>> {
        self.holding = true;
        self.inherits = false;
        count(&self.leases, &mut self.uncounted, &mut self.given);
        self.leases.clear();
        for portion in &portions {
            if !self.leases.last().is_some_and(|last| Arc::ptr_eq(last, &portion.part.lease)) {
                self.leases.push(portion.part.lease.clone());
            }
        }
        self.lent = true;
        Poll::Ready(Some(Ok(portions)))
    }

    /// Moves on past what holds no record; an error if that is one.
    fn pass(&mut self, next: Taken, inbox: &Inbox) -> Option<Error> {
        if next.lease().is_withheld() {
            return None;
        }
        match next {
            Taken::Open(Part { lease, end, .. }) | Taken::Skip { lease, end } => self.skip(&lease, end),
            next @ Taken::Raw { .. } => {
                let opened = self.open(next);
                self.pending.push_front(opened);
            }
            Taken::OutOfRange { lease } => {
                inbox.with(|assignment| assignment.out_of_range(lease.partition(), lease.generation()));
            }
            Taken::End { lease, at } => {
                let partition = lease.partition();
                let message = format!("{partition}: the end was reached at offset {at}");
                let error = Error::new(ErrorKind::EndOfPartition, message);
                return Some(error.at(partition.topic.clone(), partition.partition, at));
            }
            Taken::Broken { lease, error, end } => {
                inbox.with(|assignment| assignment.broken(&lease, end));
                self.pending.retain(|pending| !Arc::ptr_eq(pending.lease(), &lease));
                let at = lease.handed();
                let partition = lease.partition();
                let error = error.context(format_args!("read of {partition} from offset {at} on"));
                return Some(error.at(partition.topic.clone(), partition.partition, at));
            }
        }
        None
    }

    /// There is nothing to hand out before that offset.
    fn skip(&mut self, lease: &Arc<Lease>, end: i64) {
        if self.by_hand {
            return lease.skip_to(end);
        }
        // What is still in another reader's hand, which had the partition before, is done with the
        // next record.
        let settled = lease.done() >= lease.handed();
        lease.hand_out(end);
        if settled && !(self.holding && self.leases.iter().any(|held| Arc::ptr_eq(held, lease))) {
            lease.finish();
        }
    }

    /// Takes over what there is. Errors and the end only where the reader waits for something,
    /// which it then goes on doing.
    fn refill(&mut self, records: usize, inbox: &Inbox, waiting: Option<&mut Context<'_>>) -> Refill {
        let mut taken = std::mem::take(&mut self.taken);
        let refill = inbox.with(|assignment| {
            if waiting.is_some()
                && let Some(error) = assignment.pop_error_for(self.of.as_ref())
            {
                return Refill::Error(error);
            }
            assignment.take_for(self.of.as_ref(), records, &mut taken);
            match waiting {
                _ if !taken.is_empty() => Refill::Some,
                Some(_) if assignment.has_ended_for(self.of.as_ref()) => {
                    self.inherits = false;
                    Refill::Ended
                }
                Some(cx) => {
                    assignment.wait_for(self.of.as_ref(), cx.waker());
                    Refill::Nothing
                }
                None => Refill::Nothing,
            }
        });
        self.refilled |= !taken.is_empty();
        self.pending.extend(taken.drain(..));
        self.taken = taken;
        refill
    }

    /// Checks and decompresses a batch as it came; everything else stays as it is.
    fn open(&mut self, taken: Taken) -> Taken {
        let Taken::Raw { lease, batch, charge, start, end } = taken else { return taken };
        match Part::open(&lease, &batch, start..end, charge, &mut self.decompressor, &self.opening) {
            Ok(Some(part)) => {
                if batch.header.is_compressed() {
                    let growth = part.records.size().div_ceil(part.bytes.max(1)).max(1);
                    self.growth = growth.max(self.growth / 8 * 7);
                }
                Taken::Open(part)
            }
            Ok(None) => Taken::Skip { lease, end },
            Err(error) => Taken::Broken { lease, error, end },
        }
    }

    /// Whether there is room for what this is when it is open, as far as can be told before.
    fn has_room_to_open(&self, taken: &Taken) -> bool {
        let Taken::Raw { batch, charge, .. } = taken else { return true };
        let bytes = batch.bytes().len().saturating_mul(self.growth);
        // What is not compressed is there already.
        !batch.header.is_compressed() || charge.account().has_room_for(bytes)
    }

    /// Whether it took something over since this was asked last.
    pub(super) fn take_refilled(&mut self) -> bool {
        std::mem::take(&mut self.refilled)
    }

    /// Records that were given so far.
    pub(super) fn given(&mut self) -> u64 {
        count(&self.leases, &mut self.uncounted, &mut self.given);
        self.given
    }

    /// So many records more were given.
    pub(super) fn add_given(&mut self, given: u64) {
        self.given += given;
    }

    /// Takes back what was not read of its portions, in order.
    pub(super) fn take_back(&mut self, unread: Vec<Taken>) {
        for taken in unread.into_iter().rev() {
            self.pending.push_front(taken);
        }
    }

    /// After partitions were paused, positioned anew or given up: keeps only what may still be
    /// handed out.
    pub(super) fn reconcile(&mut self, assignment: &mut Assignment) {
        let of = self.of.as_ref();
        let all_stay = self.pending.iter().all(|pending| assignment.may_hand_out_by(of, pending.lease()) == Some(true));
        if all_stay {
            return;
        }
        let (mut stay, mut back) = (VecDeque::new(), Vec::new());
        for pending in self.pending.drain(..) {
            match assignment.may_hand_out_by(of, pending.lease()) {
                Some(true) => stay.push_back(pending),
                Some(false) => back.push(pending),
                None => {}
            }
        }
        self.pending = stay;
        for pending in back.into_iter().rev() {
            assignment.give_back(pending);
        }
    }
}

/// Counts what was given one by one of the lease that is held, so that it is not counted for each
/// record.
fn count(held: &[Arc<Lease>], uncounted: &mut u64, given: &mut u64) {
    let more = std::mem::take(uncounted);
    if let Some(lease) = held.first().filter(|_| more > 0) {
        lease.add_given(more);
    }
    *given += more;
}

/// A record that shares the bytes of its batch.
pub(super) fn owned(part: &Part, view: &RecordView<'_>) -> ConsumerRecord {
    let partition = part.lease.partition();
    let header = &part.records.header;
    let share = |bytes: &[u8]| part.records.share(bytes);
    ConsumerRecord {
        topic: partition.topic.clone(),
        partition: partition.partition,
        offset: view.offset,
        leader_epoch: (header.partition_leader_epoch >= 0).then_some(header.partition_leader_epoch),
        timestamp_millis: view.timestamp,
        timestamp_type: header.timestamp_type(),
        key: view.key.map(share),
        value: view.value.map(share),
        headers: view
            .headers
            .map(|(name, value)| Header { name: String::from_utf8_lossy(name).into_owned(), value: value.map(share) })
            .collect(),
    }
}
