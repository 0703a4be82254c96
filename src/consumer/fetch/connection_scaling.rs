//! Over how many connections a broker is read: one as a rule, and more of them, one after the
//! other, where one is not enough, each with a fetch session of its own over other partitions.
//!
//! One connection carries one answer in a round trip, and no more than what may be under way on it.
//! Answers grow first (`answer_size`); only where they are as large as they may be, come full one
//! after the other, and the reader still waits for each of them, does a second connection carry
//! more. It costs the broker a session, so it goes again as soon as it is the reader who takes his
//! time.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::{
    fetch::{broker_selection::FetchConnection, fetch_size::Bottleneck},
    state::ConsumerState,
    subscription::partition_state::PartitionState,
};
use crate::{
    error::{DeliveryStatus, Error},
    log::event,
    record::TopicPartition,
};

/// So many answers in a row that keep the reader waiting ask for another connection.
const PATIENCE: u32 = 4;
/// The same at most, after it was opened and taken back time and again.
const MOST_PATIENCE: u32 = 64;
/// How much has to speak against the last connection before it is given up …
const SPARE: u32 = 32;
/// … of which an answer that finds the reader with enough to do is so much, and one that is not
/// full 1.
const READER: u32 = 4;
/// A broker that has no room for another session is not asked for one for so long …
const REFUSED: Duration = Duration::from_secs(600);
/// … and one that another connection could not be made to (`max.connections.per.ip`) so long.
const UNREACHED: Duration = Duration::from_secs(60);

/// Where a partition is fetched from: a broker, over one of the connections to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FetchConnectionId {
    pub(crate) broker: i32,
    pub(crate) connection: u8,
}

/// The first connection to a broker, which there always is.
impl From<i32> for FetchConnectionId {
    fn from(broker: i32) -> Self {
        Self { broker, connection: 0 }
    }
}

/// What an answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalingDecision {
    Keep,
    /// Another connection for some of the partitions of which something came since then.
    Add(Instant),
    /// To give the last connection up.
    RemoveLast,
    /// The same, since nothing is asked for over it.
    RemoveIdle,
}

/// The connections to one broker.
#[derive(Debug)]
pub(crate) struct ConnectionScaling {
    open: u8,
    most: u8,
    /// Of each: how many answers in a row were held up by the line, and since when.
    streaks: Vec<Option<(u32, Instant)>>,
    threshold: u32,
    /// What speaks against the last one.
    surplus: u32,
    not_before: Option<Instant>,
}

impl ConnectionScaling {
    pub(crate) fn new(most: u8) -> Self {
        Self { open: 1, most: most.max(1), streaks: vec![None], threshold: PATIENCE, surplus: 0, not_before: None }
    }

    /// How many there are.
    pub(crate) fn open(&self) -> u8 {
        self.open
    }

    /// An answer came over one of them. `idle`: one over which nothing is asked for.
    pub(crate) fn response_received(
        &mut self,
        connection: u8,
        pace: Bottleneck,
        idle: Option<u8>,
        now: Instant,
    ) -> ScalingDecision {
        let is_last = |connection: u8| connection.saturating_add(1) == self.open;
        let (last, idle_last) = (is_last(connection), idle.is_some_and(is_last));
        let Some(streak) = self.streaks.get_mut(usize::from(connection)) else { return ScalingDecision::Keep };
        if pace == Bottleneck::Connection {
            let (count, since) = streak.map_or((1, now), |(count, since)| (count + 1, since));
            *streak = Some((count, since));
            self.surplus = if last { 0 } else { self.surplus };
            let may = idle.is_some() || (self.open < self.most && self.not_before.is_none_or(|at| at <= now));
            return if may && count > self.threshold { ScalingDecision::Add(since) } else { ScalingDecision::Keep };
        }
        *streak = None;
        if !last && !idle_last {
            return ScalingDecision::Keep;
        }
        match self.add_surplus(if pace == Bottleneck::Reader { READER } else { 1 }) {
            ScalingDecision::RemoveLast if idle_last && pace == Bottleneck::Other => ScalingDecision::RemoveIdle,
            change => change,
        }
    }

    /// There was no room for the next answer: the reader takes his time, and where the connections
    /// vie with each other for what he frees, some of them would come short.
    pub(crate) fn quota_exhausted(&mut self) -> ScalingDecision {
        self.add_surplus(READER)
    }

    fn add_surplus(&mut self, weight: u32) -> ScalingDecision {
        self.surplus = if self.open > 1 { self.surplus.saturating_add(weight) } else { 0 };
        if self.surplus >= SPARE { ScalingDecision::RemoveLast } else { ScalingDecision::Keep }
    }

    /// One more; its number.
    pub(crate) fn add(&mut self) -> u8 {
        let connection = self.open;
        self.open = self.open.saturating_add(1).min(self.most);
        self.reset_counts();
        connection
    }

    /// Only so many are left, and the next one comes less easily.
    pub(crate) fn keep(&mut self, connections: u8) {
        self.connections_ended(connections);
        self.threshold = self.threshold.saturating_mul(2).min(MOST_PATIENCE);
    }

    /// The last ones have ended, since nothing was read over them: only so many are left.
    pub(crate) fn connections_ended(&mut self, open: u8) {
        if open < self.open {
            self.open = open.max(1);
            self.reset_counts();
        }
    }

    /// Another connection could not be made.
    pub(crate) fn connect_failed(&mut self, now: Instant) {
        self.not_before = self.not_before.max(Some(now + UNREACHED));
    }

    /// The broker has no room for another session.
    pub(crate) fn session_refused(&mut self, now: Instant) {
        self.not_before = Some(now + REFUSED);
    }

    fn reset_counts(&mut self) {
        self.streaks.clear();
        self.streaks.resize(usize::from(self.open), None);
        self.surplus = 0;
    }
}

impl ConsumerState {
    /// Over which of a broker's connections a partition that comes to it is read: the one with the
    /// fewest.
    pub(crate) fn connection_for(&mut self, broker: i32) -> FetchConnectionId {
        let most = self.rules.connections;
        let open = self.scaling.entry(broker).or_insert_with(|| ConnectionScaling::new(most)).open();
        let connections = (0..open).map(|lane| FetchConnectionId { broker, connection: lane });
        let fewest = connections.min_by_key(|source| self.connections.get(source).map_or(0, |node| node.partitions));
        fewest.unwrap_or(broker.into())
    }

    /// An answer came that says that of the line. Nothing is under way on this connection now.
    pub(crate) fn record_bottleneck(&mut self, source: FetchConnectionId, pace: Bottleneck, now: Instant) {
        let Some(connections) = self.scaling.get_mut(&source.broker) else { return };
        let idles = |node: &FetchConnection| node.in_flight == 0 && node.session.len() == 0 && node.changed.is_empty();
        let others = (1..connections.open()).rev().filter(|lane| *lane != source.connection);
        let mut others = others.map(|lane| FetchConnectionId { connection: lane, ..source });
        let idle = others.find(|other| self.connections.get(other).is_none_or(idles)).map(|other| other.connection);
        let change = connections.response_received(source.connection, pace, idle, now);
        self.apply_scaling(source, change, idle);
    }

    /// There is no room for what could be fetched from there.
    pub(crate) fn quota_exhausted(&mut self, connection: FetchConnectionId) {
        let Some(connections) = self.scaling.get_mut(&connection.broker) else { return };
        let change = connections.quota_exhausted();
        self.apply_scaling(connection, change, None);
    }

    fn apply_scaling(&mut self, connection: FetchConnectionId, change: ScalingDecision, idle: Option<u8>) {
        let open = self.scaling.get(&connection.broker).map_or(1, ConnectionScaling::open);
        match change {
            ScalingDecision::Keep => {}
            ScalingDecision::Add(since) => self.add_connection(connection, since, idle),
            ScalingDecision::RemoveLast => self.keep_connections(connection.broker, open.saturating_sub(1)),
            ScalingDecision::RemoveIdle => self.close_connections(connection.broker, open.saturating_sub(1)),
        }
    }

    /// Whether a broker is read over more than one connection.
    pub(crate) fn has_several_connections(&self, broker: i32) -> bool {
        self.scaling.get(&broker).is_some_and(|connections| connections.open() > 1)
    }

    /// A broker has no room for a session: without one every request names all partitions, which
    /// more connections make no better.
    pub(crate) fn session_refused(&mut self, connection: FetchConnectionId, now: Instant) {
        if let Some(connections) = self.scaling.get_mut(&connection.broker) {
            connections.session_refused(now);
        }
        if connection.connection > 0 {
            self.keep_connections(connection.broker, connection.connection);
        }
    }

    /// A connection over which nothing was read has ended. With the last one all before it end that
    /// did so earlier.
    pub(crate) fn connection_ended(&mut self, broker: i32) {
        let left = self
            .connections
            .keys()
            .filter(|connection| connection.broker == broker)
            .map(|connection| connection.connection)
            .max();
        if let Some(connections) = self.scaling.get_mut(&broker) {
            connections.connections_ended(left.map_or(1, |lane| lane.saturating_add(1)));
        }
        // Which may have waited for the end of this one.
        self.signals.connections.insert(broker.into());
    }

    /// A fetch over another connection than the first one failed: its partitions go on over those
    /// that are left. If it is the broker that is gone, these say so.
    pub(crate) fn connection_failed(&mut self, connection: FetchConnectionId, error: &Error, now: Instant) {
        let unsent = error.delivery_status() == Some(DeliveryStatus::NotPersisted);
        if let Some(connections) = self.scaling.get_mut(&connection.broker).filter(|_| unsent) {
            connections.connect_failed(now);
        }
        self.keep_connections(connection.broker, connection.connection);
    }

    /// Whether any reader waits for records right now.
    pub(crate) fn any_reader_waits(&self) -> bool {
        self.reader_waits()
            || self.partitions.values().any(|state| state.split.as_ref().is_some_and(|split| split.is_waiting()))
    }

    /// Every second partition of a connection goes to a new one, or to one that has nothing to do;
    /// those of which something came since then first: if there are two of them.
    fn add_connection(&mut self, from: FetchConnectionId, since: Instant, idle: Option<u8>) {
        let here = self.partitions.iter().filter(|(_, state)| state.connection_id() == Some(from));
        let mut here: Vec<_> = here.map(|(partition, state)| (state.last_data_at, partition.clone())).collect();
        here.sort_unstable_by(|one, other| other.cmp(one));
        let Some(connections) = self.scaling.get_mut(&from.broker) else { return };
        if here.iter().filter(|(fed, _)| fed.is_some_and(|at| at >= since)).count() < 2 {
            // To be looked at again after as many answers.
            return connections.reset_counts();
        }
        let lane = match idle {
            Some(lane) => {
                connections.reset_counts();
                lane
            }
            None => connections.add(),
        };
        let to = FetchConnectionId { broker: from.broker, connection: lane };
        event!(DEBUG, self.rules.origin, broker = to.broker, lane = to.connection, "another connection to fetch over");
        let size = self.connections.get(&from).map(|node| node.fetch_size.clone());
        for (_, partition) in here.into_iter().skip(1).step_by(2) {
            self.move_to_connection(&partition, to);
        }
        if let (Some(size), Some(node)) = (size, self.connections.get_mut(&to)) {
            node.fetch_size = size;
        }
    }

    /// Only so many of a broker's connections are left, and the next one comes less easily.
    pub(crate) fn keep_connections(&mut self, broker: i32, keep: u8) {
        if let Some(connections) = self.scaling.get_mut(&broker).filter(|connections| keep < connections.open()) {
            connections.keep(keep);
            self.redistribute_partitions(broker);
        }
    }

    /// The same where they are just not needed.
    fn close_connections(&mut self, broker: i32, keep: u8) {
        if let Some(connections) = self.scaling.get_mut(&broker).filter(|connections| keep < connections.open()) {
            connections.connections_ended(keep);
            self.redistribute_partitions(broker);
        }
    }

    /// The partitions of connections that are given up go on over the others. What is still under
    /// way is as good as any.
    fn redistribute_partitions(&mut self, broker: i32) {
        let open = self.scaling.get(&broker).map_or(1, ConnectionScaling::open);
        event!(DEBUG, self.rules.origin, broker, open, "fewer connections to fetch over");
        let gone = |connection: FetchConnectionId| connection.broker == broker && connection.connection >= open;
        let here = self.partitions.iter().filter(|(_, state)| state.connection_id().is_some_and(gone));
        for partition in here.map(|(partition, _)| partition.clone()).collect::<Vec<_>>() {
            let to = self.connection_for(broker);
            self.move_to_connection(&partition, to);
        }
    }

    fn move_to_connection(&mut self, partition: &TopicPartition, to: FetchConnectionId) {
        let before = self.partitions.get(partition).and_then(PartitionState::connection_id);
        // First there, then away, so that the broker's share is not given up in between.
        self.join_connection(partition, to);
        self.leave_connection(before, partition);
        self.mark_changed(partition);
    }

    /// What is reserved for answers that are under way over a broker's other connections.
    pub(crate) fn in_flight_on_siblings(&self, connection: FetchConnectionId) -> usize {
        let others =
            self.connections.iter().filter(|(other, _)| other.broker == connection.broker && **other != connection);
        others.map(|(_, node)| node.in_flight).sum()
    }

    /// A fetch ended. Where a broker's share is full, its other connections have waited for that:
    /// whether one of them may go beyond it is to be seen anew.
    pub(crate) fn wake_siblings(&mut self, connection: FetchConnectionId) {
        if self.connections.get(&connection).is_some_and(|node| node.quota.is_starved()) {
            self.recheck_siblings(connection);
        }
    }

    /// A broker's other connections that nothing is under way on look again what they can fetch.
    pub(crate) fn recheck_siblings(&mut self, connection: FetchConnectionId) {
        let beside = |other: &FetchConnectionId| other.broker == connection.broker && *other != connection;
        let idle = self.connections.iter().filter(|(other, node)| beside(other) && node.in_flight == 0);
        self.signals.connections.extend(idle.map(|(other, _)| *other));
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::connection_scaling::*;

    const MS: Duration = Duration::from_millis(1);

    /// So many answers of that pace over one connection; what the last of them asks for.
    fn answers(
        connections: &mut ConnectionScaling,
        connection: u8,
        pace: Bottleneck,
        count: u32,
        now: Instant,
    ) -> ScalingDecision {
        (1..count).for_each(|_| {
            assert_eq!(connections.response_received(connection, pace, None, now), ScalingDecision::Keep)
        });
        connections.response_received(connection, pace, None, now)
    }

    #[test]
    fn sustained_reader_waits_open_another_connection() {
        let now = Instant::now();
        let mut connections = ConnectionScaling::new(2);
        answers(&mut connections, 0, Bottleneck::Connection, PATIENCE, now);
        for pace in [Bottleneck::Reader, Bottleneck::Other] {
            assert_eq!(connections.response_received(0, pace, None, now), ScalingDecision::Keep);
            assert_eq!(
                answers(&mut connections, 0, Bottleneck::Connection, PATIENCE, now),
                ScalingDecision::Keep,
                "from the beginning"
            );
        }
        assert_eq!(connections.response_received(0, Bottleneck::Connection, None, now + MS), ScalingDecision::Add(now));
        assert_eq!((connections.add(), connections.open()), (1, 2));
        assert_eq!(
            answers(&mut connections, 1, Bottleneck::Connection, 100, now),
            ScalingDecision::Keep,
            "no more than may be"
        );
        let mut one = ConnectionScaling::new(0);
        assert_eq!(answers(&mut one, 0, Bottleneck::Connection, 100, now), ScalingDecision::Keep);
    }

    #[test]
    fn closes_newest_when_reader_is_slow() {
        let now = Instant::now();
        let mut connections = ConnectionScaling::new(4);
        connections.add();
        connections.add();
        assert_eq!(
            answers(&mut connections, 0, Bottleneck::Reader, 100, now),
            ScalingDecision::Keep,
            "it is not the last"
        );
        answers(&mut connections, 2, Bottleneck::Reader, SPARE / READER - 1, now);
        connections.response_received(2, Bottleneck::Connection, None, now);
        assert_eq!(answers(&mut connections, 2, Bottleneck::Reader, SPARE / READER, now), ScalingDecision::RemoveLast);
        connections.keep(2);
        assert_eq!(connections.open(), 2);
        assert_eq!(
            connections.response_received(2, Bottleneck::Connection, None, now),
            ScalingDecision::Keep,
            "an answer that was under way"
        );
        assert_eq!(
            answers(&mut connections, 1, Bottleneck::Other, SPARE, now),
            ScalingDecision::RemoveLast,
            "nor is there much to read"
        );
        connections.keep(1);
        assert_eq!(
            answers(&mut connections, 0, Bottleneck::Other, 1000, now),
            ScalingDecision::Keep,
            "the first one stays"
        );
        assert_eq!(answers(&mut connections, 0, Bottleneck::Connection, 4 * PATIENCE, now), ScalingDecision::Keep);
        assert_eq!(connections.response_received(0, Bottleneck::Connection, None, now), ScalingDecision::Add(now));
    }

    #[test]
    fn memory_shortage_closes_newest_connection() {
        let now = Instant::now();
        let mut connections = ConnectionScaling::new(4);
        (0..100).for_each(|_| assert_eq!(connections.quota_exhausted(), ScalingDecision::Keep, "the first one stays"));
        connections.add();
        (1..SPARE / READER).for_each(|_| assert_eq!(connections.quota_exhausted(), ScalingDecision::Keep));
        connections.response_received(1, Bottleneck::Connection, None, now);
        (1..SPARE / READER).for_each(|_| assert_eq!(connections.quota_exhausted(), ScalingDecision::Keep));
        assert_eq!(connections.quota_exhausted(), ScalingDecision::RemoveLast);
    }

    #[test]
    fn refused_session_delays_next_connection() {
        let now = Instant::now();
        let mut connections = ConnectionScaling::new(4);
        connections.add();
        connections.session_refused(now);
        connections.keep(1);
        assert_eq!(answers(&mut connections, 0, Bottleneck::Connection, 100, now), ScalingDecision::Keep);
        assert_eq!(
            connections.response_received(0, Bottleneck::Connection, None, now + REFUSED),
            ScalingDecision::Add(now)
        );
    }

    #[test]
    fn idle_connection_is_reported_after_other_responses() {
        let now = Instant::now();
        let mut connections = ConnectionScaling::new(4);
        connections.add();
        (1..SPARE).for_each(|_| {
            assert_eq!(connections.response_received(0, Bottleneck::Other, Some(1), now), ScalingDecision::Keep)
        });
        assert_eq!(connections.response_received(0, Bottleneck::Other, Some(1), now), ScalingDecision::RemoveIdle);
        assert_eq!(answers(&mut connections, 0, Bottleneck::Connection, PATIENCE, now), ScalingDecision::Keep);
        assert_eq!(
            connections.response_received(0, Bottleneck::Connection, Some(1), now),
            ScalingDecision::Add(now),
            "or it gets something to do"
        );
        let mut alone = ConnectionScaling::new(4);
        (0..100)
            .for_each(|_| assert_eq!(alone.response_received(0, Bottleneck::Other, None, now), ScalingDecision::Keep));
    }

    #[test]
    fn ended_connections_are_replaced_only_after_wait() {
        let now = Instant::now();
        let mut connections = ConnectionScaling::new(4);
        connections.add();
        connections.add();
        connections.connections_ended(3);
        assert_eq!(connections.open(), 3, "one that is not the last");
        connections.connections_ended(0);
        assert_eq!(connections.open(), 1);
        connections.connect_failed(now);
        assert_eq!(answers(&mut connections, 0, Bottleneck::Connection, 100, now), ScalingDecision::Keep);
        assert_eq!(
            connections.response_received(0, Bottleneck::Connection, None, now + UNREACHED),
            ScalingDecision::Add(now)
        );
        connections.session_refused(now);
        connections.connect_failed(now);
        assert_eq!(
            connections.response_received(0, Bottleneck::Connection, None, now + UNREACHED),
            ScalingDecision::Keep,
            "the longer one counts"
        );
    }
}
