//! Decides over how many connections a broker is read. One is usually enough; more are added one by
//! one, each with a fetch session of its own over other partitions.
//!
//! One connection carries one response per round trip, of limited size. Responses grow first
//! (`fetch_size`). A second connection helps only if responses have their largest size, arrive full
//! one after another, and the reader still waits for each. It costs the broker a session, so it is
//! closed again as soon as the reader is the bottleneck.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::fetch::fetch_size::Bottleneck;

/// Another connection is added after more than this number of responses in a row with the
/// connection as bottleneck.
const THRESHOLD: u32 = 4;
/// Limit of that number, which doubles each time a connection was opened and closed again.
const MAX_THRESHOLD: u32 = 64;
/// Score at which the newest connection is closed.
const SPARE: u32 = 32;
/// Score added if the reader is the bottleneck; a response that shows no bottleneck adds 1.
const READER: u32 = 4;
/// Time for which a broker that has no room for another session is not asked for one.
const REFUSED: Duration = Duration::from_secs(600);
/// Time without another attempt after a connection could not be made (`max.connections.per.ip`).
const UNREACHED: Duration = Duration::from_secs(60);

/// Change of the number of connections after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalingDecision {
    Keep,
    /// Add a connection for some of the partitions that received data since that time.
    Add(Instant),
    /// Close the last connection.
    RemoveLast,
    /// Close the last connection because no partition is fetched over it.
    RemoveIdle,
}

/// The connections to one broker.
#[derive(Debug)]
pub(crate) struct ConnectionScaling {
    open: u8,
    most: u8,
    /// Per connection: the number of responses in a row with the connection as bottleneck, and the
    /// time of the first.
    streaks: Vec<Option<(u32, Instant)>>,
    threshold: u32,
    /// Score for closing the last connection.
    surplus: u32,
    not_before: Option<Instant>,
}

impl ConnectionScaling {
    pub(crate) fn new(most: u8) -> Self {
        Self { open: 1, most: most.max(1), streaks: vec![None], threshold: THRESHOLD, surplus: 0, not_before: None }
    }

    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> u8 {
        self.open
    }

    /// Records a response over one connection. `idle` is a connection that no partition is fetched
    /// over.
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

    /// Records that the quota had no room for the next fetch: the reader is slow, and if
    /// connections compete for the memory that it releases, some of them get none.
    pub(crate) fn quota_exhausted(&mut self) -> ScalingDecision {
        self.add_surplus(READER)
    }

    fn add_surplus(&mut self, weight: u32) -> ScalingDecision {
        self.surplus = if self.open > 1 { self.surplus.saturating_add(weight) } else { 0 };
        if self.surplus >= SPARE { ScalingDecision::RemoveLast } else { ScalingDecision::Keep }
    }

    /// Adds a connection and returns its number.
    pub(crate) fn add(&mut self) -> u8 {
        let connection = self.open;
        self.open = self.open.saturating_add(1).min(self.most);
        self.reset_counts();
        connection
    }

    /// Keeps the first `connections` ones, and doubles the threshold for the next one.
    pub(crate) fn keep(&mut self, connections: u8) {
        self.connections_ended(connections);
        self.threshold = self.threshold.saturating_mul(2).min(MAX_THRESHOLD);
    }

    /// Keeps the first `open` connections; the later ones ended because no partition was fetched
    /// over them.
    pub(crate) fn connections_ended(&mut self, open: u8) {
        if open < self.open {
            self.open = open.max(1);
            self.reset_counts();
        }
    }

    /// Delays the next connection after one could not be made.
    pub(crate) fn connect_failed(&mut self, now: Instant) {
        self.not_before = self.not_before.max(Some(now + UNREACHED));
    }

    /// Delays the next connection because the broker has no room for another session.
    pub(crate) fn session_refused(&mut self, now: Instant) {
        self.not_before = Some(now + REFUSED);
    }

    pub(crate) fn reset_counts(&mut self) {
        self.streaks.clear();
        self.streaks.resize(usize::from(self.open), None);
        self.surplus = 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::connection_scaling::*;

    const MS: Duration = Duration::from_millis(1);

    /// Feeds that number of responses over one connection; returns the decision after the last of
    /// them.
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
        answers(&mut connections, 0, Bottleneck::Connection, THRESHOLD, now);
        for pace in [Bottleneck::Reader, Bottleneck::Other] {
            assert_eq!(connections.response_received(0, pace, None, now), ScalingDecision::Keep);
            assert_eq!(
                answers(&mut connections, 0, Bottleneck::Connection, THRESHOLD, now),
                ScalingDecision::Keep,
                "counted from zero again"
            );
        }
        assert_eq!(connections.response_received(0, Bottleneck::Connection, None, now + MS), ScalingDecision::Add(now));
        assert_eq!((connections.add(), connections.open()), (1, 2));
        assert_eq!(
            answers(&mut connections, 1, Bottleneck::Connection, 100, now),
            ScalingDecision::Keep,
            "the limit is reached"
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
            "a response that was outstanding"
        );
        assert_eq!(
            answers(&mut connections, 1, Bottleneck::Other, SPARE, now),
            ScalingDecision::RemoveLast,
            "there is little to read as well"
        );
        connections.keep(1);
        assert_eq!(
            answers(&mut connections, 0, Bottleneck::Other, 1000, now),
            ScalingDecision::Keep,
            "the first one stays"
        );
        assert_eq!(answers(&mut connections, 0, Bottleneck::Connection, 4 * THRESHOLD, now), ScalingDecision::Keep);
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
        assert_eq!(answers(&mut connections, 0, Bottleneck::Connection, THRESHOLD, now), ScalingDecision::Keep);
        assert_eq!(
            connections.response_received(0, Bottleneck::Connection, Some(1), now),
            ScalingDecision::Add(now),
            "otherwise it gets partitions"
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
        assert_eq!(connections.open(), 3, "the ended one is not the last");
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
