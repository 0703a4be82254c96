//! Over how many connections a broker is read: one as a rule, and more of them, one after the
//! other, where one is not enough, each with a fetch session of its own over other partitions.
//! Decides; does no IO.
//!
//! One connection carries one answer in a round trip, and no more than what may be under way on it.
//! Answers grow first (`answer_size`); only where they are as large as they may be, come full one
//! after the other, and the reader still waits for each of them, does a second connection carry
//! more. It costs the broker a session, so it goes again as soon as it is the reader who takes his
//! time.

use std::time::{Duration, Instant};

use super::{answer_size::Pace, assignment::Assignment, partition::Partition, routes::Node};
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
pub(super) struct Source {
    pub(super) broker: i32,
    pub(super) lane: u8,
}

/// The first connection to a broker, which there always is.
impl From<i32> for Source {
    fn from(broker: i32) -> Self {
        Self { broker, lane: 0 }
    }
}

/// What an answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// Another connection for some of the partitions of which something came since then.
    More(Instant),
    /// To give the last connection up.
    Fewer,
    /// The same, since nothing is asked for over it.
    Idle,
}

/// The connections to one broker.
#[derive(Debug)]
pub(super) struct Lanes {
    open: u8,
    most: u8,
    /// Of each: how many answers in a row were held up by the line, and since when.
    streaks: Vec<Option<(u32, Instant)>>,
    patience: u32,
    /// What speaks against the last one.
    spare: u32,
    not_before: Option<Instant>,
}

impl Lanes {
    pub(super) fn new(most: u8) -> Self {
        Self { open: 1, most: most.max(1), streaks: vec![None], patience: PATIENCE, spare: 0, not_before: None }
    }

    /// How many there are.
    pub(super) fn open(&self) -> u8 {
        self.open
    }

    /// An answer came over one of them. `idle`: one over which nothing is asked for.
    pub(super) fn answered(&mut self, lane: u8, pace: Pace, idle: Option<u8>, now: Instant) -> Change {
        let is_last = |lane: u8| lane.saturating_add(1) == self.open;
        let (last, idle_last) = (is_last(lane), idle.is_some_and(is_last));
        let Some(streak) = self.streaks.get_mut(usize::from(lane)) else { return Change::Nothing };
        if pace == Pace::Line {
            let (count, since) = streak.map_or((1, now), |(count, since)| (count + 1, since));
            *streak = Some((count, since));
            self.spare = if last { 0 } else { self.spare };
            let may = idle.is_some() || (self.open < self.most && self.not_before.is_none_or(|at| at <= now));
            return if may && count > self.patience { Change::More(since) } else { Change::Nothing };
        }
        *streak = None;
        if !last && !idle_last {
            return Change::Nothing;
        }
        match self.counts_against(if pace == Pace::Reader { READER } else { 1 }) {
            Change::Fewer if idle_last && pace == Pace::Other => Change::Idle,
            change => change,
        }
    }

    /// There was no room for the next answer: the reader takes his time, and where the connections
    /// vie with each other for what he frees, some of them would come short.
    pub(super) fn held_up(&mut self) -> Change {
        self.counts_against(READER)
    }

    fn counts_against(&mut self, weight: u32) -> Change {
        self.spare = if self.open > 1 { self.spare.saturating_add(weight) } else { 0 };
        if self.spare >= SPARE { Change::Fewer } else { Change::Nothing }
    }

    /// One more; its number.
    pub(super) fn add(&mut self) -> u8 {
        let lane = self.open;
        self.open = self.open.saturating_add(1).min(self.most);
        self.begin_anew();
        lane
    }

    /// Only so many are left, and the next one comes less easily.
    pub(super) fn keep(&mut self, lanes: u8) {
        self.ended(lanes);
        self.patience = self.patience.saturating_mul(2).min(MOST_PATIENCE);
    }

    /// The last ones have ended, since nothing was read over them: only so many are left.
    pub(super) fn ended(&mut self, open: u8) {
        if open < self.open {
            self.open = open.max(1);
            self.begin_anew();
        }
    }

    /// Another connection could not be made.
    pub(super) fn unreached(&mut self, now: Instant) {
        self.not_before = self.not_before.max(Some(now + UNREACHED));
    }

    /// The broker has no room for another session.
    pub(super) fn refused(&mut self, now: Instant) {
        self.not_before = Some(now + REFUSED);
    }

    fn begin_anew(&mut self) {
        self.streaks.clear();
        self.streaks.resize(usize::from(self.open), None);
        self.spare = 0;
    }
}

impl Assignment {
    /// Over which of a broker's connections a partition that comes to it is read: the one with the
    /// fewest.
    pub(super) fn lane_for(&mut self, broker: i32) -> Source {
        let most = self.rules.connections;
        let open = self.lanes.entry(broker).or_insert_with(|| Lanes::new(most)).open();
        let sources = (0..open).map(|lane| Source { broker, lane });
        let fewest = sources.min_by_key(|source| self.nodes.get(source).map_or(0, |node| node.partitions));
        fewest.unwrap_or(broker.into())
    }

    /// An answer came that says that of the line. Nothing is under way on this connection now.
    pub(super) fn pace_of(&mut self, source: Source, pace: Pace, now: Instant) {
        let Some(lanes) = self.lanes.get_mut(&source.broker) else { return };
        let idles = |node: &Node| node.under_way == 0 && node.session.len() == 0 && node.changed.is_empty();
        let others = (1..lanes.open()).rev().filter(|lane| *lane != source.lane);
        let mut others = others.map(|lane| Source { lane, ..source });
        let idle = others.find(|other| self.nodes.get(other).is_none_or(idles)).map(|other| other.lane);
        let change = lanes.answered(source.lane, pace, idle, now);
        self.change_lanes(source, change, idle);
    }

    /// There is no room for what could be fetched from there.
    pub(super) fn held_up(&mut self, source: Source) {
        let Some(lanes) = self.lanes.get_mut(&source.broker) else { return };
        let change = lanes.held_up();
        self.change_lanes(source, change, None);
    }

    fn change_lanes(&mut self, source: Source, change: Change, idle: Option<u8>) {
        let open = self.lanes.get(&source.broker).map_or(1, Lanes::open);
        match change {
            Change::Nothing => {}
            Change::More(since) => self.add_lane(source, since, idle),
            Change::Fewer => self.keep_lanes(source.broker, open.saturating_sub(1)),
            Change::Idle => self.close_lanes(source.broker, open.saturating_sub(1)),
        }
    }

    /// Whether a broker is read over more than one connection.
    pub(super) fn has_lanes(&self, broker: i32) -> bool {
        self.lanes.get(&broker).is_some_and(|lanes| lanes.open() > 1)
    }

    /// A broker has no room for a session: without one every request names all partitions, which
    /// more connections make no better.
    pub(super) fn refuses_session(&mut self, source: Source, now: Instant) {
        if let Some(lanes) = self.lanes.get_mut(&source.broker) {
            lanes.refused(now);
        }
        if source.lane > 0 {
            self.keep_lanes(source.broker, source.lane);
        }
    }

    /// A connection over which nothing was read has ended. With the last one all before it end that
    /// did so earlier.
    pub(super) fn lane_ended(&mut self, broker: i32) {
        let left = self.nodes.keys().filter(|source| source.broker == broker).map(|source| source.lane).max();
        if let Some(lanes) = self.lanes.get_mut(&broker) {
            lanes.ended(left.map_or(1, |lane| lane.saturating_add(1)));
        }
        // Which may have waited for the end of this one.
        self.signals.nodes.insert(broker.into());
    }

    /// A fetch over another connection than the first one failed: its partitions go on over those
    /// that are left. If it is the broker that is gone, these say so.
    pub(super) fn lane_failed(&mut self, source: Source, error: &Error, now: Instant) {
        let unsent = error.delivery_status() == Some(DeliveryStatus::NotPersisted);
        if let Some(lanes) = self.lanes.get_mut(&source.broker).filter(|_| unsent) {
            lanes.unreached(now);
        }
        self.keep_lanes(source.broker, source.lane);
    }

    /// Whether any reader waits for records right now.
    pub(super) fn somebody_waits(&self) -> bool {
        self.reader_waits()
            || self.partitions.values().any(|found| found.split.as_ref().is_some_and(|split| split.is_waiting()))
    }

    /// Every second partition of a connection goes to a new one, or to one that has nothing to do;
    /// those of which something came since then first: if there are two of them.
    fn add_lane(&mut self, from: Source, since: Instant, idle: Option<u8>) {
        let here = self.partitions.iter().filter(|(_, found)| found.source() == Some(from));
        let mut here: Vec<_> = here.map(|(partition, found)| (found.fed, partition.clone())).collect();
        here.sort_unstable_by(|one, other| other.cmp(one));
        let Some(lanes) = self.lanes.get_mut(&from.broker) else { return };
        if here.iter().filter(|(fed, _)| fed.is_some_and(|at| at >= since)).count() < 2 {
            // To be looked at again after as many answers.
            return lanes.begin_anew();
        }
        let lane = match idle {
            Some(lane) => {
                lanes.begin_anew();
                lane
            }
            None => lanes.add(),
        };
        let to = Source { broker: from.broker, lane };
        event!(DEBUG, self.rules.origin, broker = to.broker, lane = to.lane, "another connection to fetch over");
        let size = self.nodes.get(&from).map(|node| node.answer_size.clone());
        for (_, partition) in here.into_iter().skip(1).step_by(2) {
            self.move_to_lane(&partition, to);
        }
        if let (Some(size), Some(node)) = (size, self.nodes.get_mut(&to)) {
            node.answer_size = size;
        }
    }

    /// Only so many of a broker's connections are left, and the next one comes less easily.
    pub(super) fn keep_lanes(&mut self, broker: i32, keep: u8) {
        if let Some(lanes) = self.lanes.get_mut(&broker).filter(|lanes| keep < lanes.open()) {
            lanes.keep(keep);
            self.move_to_those_left(broker);
        }
    }

    /// The same where they are just not needed.
    fn close_lanes(&mut self, broker: i32, keep: u8) {
        if let Some(lanes) = self.lanes.get_mut(&broker).filter(|lanes| keep < lanes.open()) {
            lanes.ended(keep);
            self.move_to_those_left(broker);
        }
    }

    /// The partitions of connections that are given up go on over the others. What is still under
    /// way is as good as any.
    fn move_to_those_left(&mut self, broker: i32) {
        let open = self.lanes.get(&broker).map_or(1, Lanes::open);
        event!(DEBUG, self.rules.origin, broker, open, "fewer connections to fetch over");
        let gone = |source: Source| source.broker == broker && source.lane >= open;
        let here = self.partitions.iter().filter(|(_, found)| found.source().is_some_and(gone));
        for partition in here.map(|(partition, _)| partition.clone()).collect::<Vec<_>>() {
            let to = self.lane_for(broker);
            self.move_to_lane(&partition, to);
        }
    }

    fn move_to_lane(&mut self, partition: &TopicPartition, to: Source) {
        let before = self.partitions.get(partition).and_then(Partition::source);
        // First there, then away, so that the broker's share is not given up in between.
        self.join_source(partition, to);
        self.leave_source(before, partition);
        self.touch(partition);
    }

    /// What is reserved for answers that are under way over a broker's other connections.
    pub(super) fn under_way_beside(&self, source: Source) -> usize {
        let others = self.nodes.iter().filter(|(other, _)| other.broker == source.broker && **other != source);
        others.map(|(_, node)| node.under_way).sum()
    }

    /// A fetch ended. Where a broker's share is full, its other connections have waited for that:
    /// whether one of them may go beyond it is to be seen anew.
    pub(super) fn wake_beside(&mut self, source: Source) {
        if self.nodes.get(&source).is_some_and(|node| node.account.is_starved()) {
            self.look_again_beside(source);
        }
    }

    /// A broker's other connections that nothing is under way on look again what they can fetch.
    pub(super) fn look_again_beside(&mut self, source: Source) {
        let beside = |other: &Source| other.broker == source.broker && *other != source;
        let idle = self.nodes.iter().filter(|(other, node)| beside(other) && node.under_way == 0);
        self.signals.nodes.extend(idle.map(|(other, _)| *other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// So many answers of that pace over one connection; what the last of them asks for.
    fn answers(lanes: &mut Lanes, lane: u8, pace: Pace, count: u32, now: Instant) -> Change {
        (1..count).for_each(|_| assert_eq!(lanes.answered(lane, pace, None, now), Change::Nothing));
        lanes.answered(lane, pace, None, now)
    }

    #[test]
    fn answers_in_a_row_that_keep_the_reader_waiting_ask_for_another_connection() {
        let now = Instant::now();
        let mut lanes = Lanes::new(2);
        answers(&mut lanes, 0, Pace::Line, PATIENCE, now);
        for pace in [Pace::Reader, Pace::Other] {
            assert_eq!(lanes.answered(0, pace, None, now), Change::Nothing);
            assert_eq!(answers(&mut lanes, 0, Pace::Line, PATIENCE, now), Change::Nothing, "from the beginning");
        }
        assert_eq!(lanes.answered(0, Pace::Line, None, now + MS), Change::More(now));
        assert_eq!((lanes.add(), lanes.open()), (1, 2));
        assert_eq!(answers(&mut lanes, 1, Pace::Line, 100, now), Change::Nothing, "no more than may be");
        let mut one = Lanes::new(0);
        assert_eq!(answers(&mut one, 0, Pace::Line, 100, now), Change::Nothing);
    }

    #[test]
    fn a_reader_that_has_enough_to_do_takes_the_last_one_back_and_the_next_comes_less_easily() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        lanes.add();
        lanes.add();
        assert_eq!(answers(&mut lanes, 0, Pace::Reader, 100, now), Change::Nothing, "it is not the last");
        answers(&mut lanes, 2, Pace::Reader, SPARE / READER - 1, now);
        lanes.answered(2, Pace::Line, None, now);
        assert_eq!(answers(&mut lanes, 2, Pace::Reader, SPARE / READER, now), Change::Fewer);
        lanes.keep(2);
        assert_eq!(lanes.open(), 2);
        assert_eq!(lanes.answered(2, Pace::Line, None, now), Change::Nothing, "an answer that was under way");
        assert_eq!(answers(&mut lanes, 1, Pace::Other, SPARE, now), Change::Fewer, "nor is there much to read");
        lanes.keep(1);
        assert_eq!(answers(&mut lanes, 0, Pace::Other, 1000, now), Change::Nothing, "the first one stays");
        assert_eq!(answers(&mut lanes, 0, Pace::Line, 4 * PATIENCE, now), Change::Nothing);
        assert_eq!(lanes.answered(0, Pace::Line, None, now), Change::More(now));
    }

    #[test]
    fn want_of_room_takes_them_back_as_well() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        (0..100).for_each(|_| assert_eq!(lanes.held_up(), Change::Nothing, "the first one stays"));
        lanes.add();
        (1..SPARE / READER).for_each(|_| assert_eq!(lanes.held_up(), Change::Nothing));
        lanes.answered(1, Pace::Line, None, now);
        (1..SPARE / READER).for_each(|_| assert_eq!(lanes.held_up(), Change::Nothing));
        assert_eq!(lanes.held_up(), Change::Fewer);
    }

    #[test]
    fn a_broker_without_room_for_another_session_is_left_alone_for_a_while() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        lanes.add();
        lanes.refused(now);
        lanes.keep(1);
        assert_eq!(answers(&mut lanes, 0, Pace::Line, 100, now), Change::Nothing);
        assert_eq!(lanes.answered(0, Pace::Line, None, now + REFUSED), Change::More(now));
    }

    #[test]
    fn one_that_nothing_is_asked_for_over_is_taken_back_by_what_the_others_bring() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        lanes.add();
        (1..SPARE).for_each(|_| assert_eq!(lanes.answered(0, Pace::Other, Some(1), now), Change::Nothing));
        assert_eq!(lanes.answered(0, Pace::Other, Some(1), now), Change::Idle);
        assert_eq!(answers(&mut lanes, 0, Pace::Line, PATIENCE, now), Change::Nothing);
        assert_eq!(lanes.answered(0, Pace::Line, Some(1), now), Change::More(now), "or it gets something to do");
        let mut alone = Lanes::new(4);
        (0..100).for_each(|_| assert_eq!(alone.answered(0, Pace::Other, None, now), Change::Nothing));
    }

    #[test]
    fn those_that_end_are_no_longer_open_and_what_cannot_be_reached_is_tried_again_later() {
        let now = Instant::now();
        let mut lanes = Lanes::new(4);
        lanes.add();
        lanes.add();
        lanes.ended(3);
        assert_eq!(lanes.open(), 3, "one that is not the last");
        lanes.ended(0);
        assert_eq!(lanes.open(), 1);
        lanes.unreached(now);
        assert_eq!(answers(&mut lanes, 0, Pace::Line, 100, now), Change::Nothing);
        assert_eq!(lanes.answered(0, Pace::Line, None, now + UNREACHED), Change::More(now));
        lanes.refused(now);
        lanes.unreached(now);
        assert_eq!(lanes.answered(0, Pace::Line, None, now + UNREACHED), Change::Nothing, "the longer one counts");
    }
}
