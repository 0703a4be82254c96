//! The actions of each round, as a pure function of the seed.
//!
//! The plan can be repeated exactly, but not the reactions of a real cluster (leaders, the start
//! time of a JVM).

use std::fmt;
use std::time::Duration;

/// Pseudo-random numbers that are determined by the seed, in every version of this program
/// (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns one of the numbers below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The node that an action hits; chosen when the action takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// This node.
    Node(usize),
    /// The node that leads most partitions of the topic.
    MostLeader,
    /// The active controller.
    Controller,
}

/// The action of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL, and a new start after a while.
    Kill { victim: Victim, down: Duration },
    /// SIGSTOP, and SIGCONT after a while: the node then handles, late, the data that its sockets
    /// received meanwhile.
    Freeze { victim: Victim, frozen: Duration },
    /// Several short freezes one after the other, shorter than any timeout and longer than some.
    Stutter { victim: Victim, times: u32, frozen: Duration, between: Duration },
    /// SIGSTOP, then SIGKILL: data that its sockets received is lost although the system
    /// acknowledged it.
    FreezeAndKill { victim: Victim, frozen: Duration, down: Duration },
    /// SIGTERM and a new start, one node after the other, each once the one before is in sync
    /// again.
    Roll { first: usize, down: Duration },
    /// SIGKILL for two at nearly the same time: no quorum, and no partition with enough replicas.
    KillTwo { first: Victim, apart: Duration, down: Duration },
    /// SIGSTOP for two at nearly the same time.
    FreezeTwo { first: Victim, apart: Duration, frozen: Duration },
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Number of the round, from 1.
    pub(crate) number: u64,
    /// Time at the beginning without an action.
    pub(crate) quiet: Duration,
    pub(crate) deed: Deed,
}

impl Round {
    /// Plans the round of that number. Each round has random numbers of its own, so that it can be
    /// repeated without the rounds before it.
    pub(crate) fn new(seed: u64, number: u64, nodes: usize) -> Self {
        let mut dice = Dice::new(Dice::new(seed ^ number.rotate_left(32)).roll());
        let quiet = dice.millis(500, 6_000);
        let deed = match dice.below(100) {
            0..30 => Deed::Kill { victim: victim(&mut dice, nodes), down: dice.millis(200, 12_000) },
            30..55 => Deed::Freeze { victim: victim(&mut dice, nodes), frozen: freeze(&mut dice) },
            55..65 => Deed::Stutter {
                victim: victim(&mut dice, nodes),
                times: 2 + u32::try_from(dice.below(5)).unwrap_or(0),
                frozen: dice.millis(300, 3_000),
                between: dice.millis(50, 2_000),
            },
            65..75 => Deed::FreezeAndKill {
                victim: victim(&mut dice, nodes),
                frozen: freeze(&mut dice),
                down: dice.millis(0, 5_000),
            },
            75..85 => Deed::Roll { first: node(&mut dice, nodes), down: dice.millis(0, 3_000) },
            85..93 => Deed::KillTwo {
                first: victim(&mut dice, nodes),
                apart: dice.millis(0, 2_000),
                down: dice.millis(200, 10_000),
            },
            _ => Deed::FreezeTwo {
                first: victim(&mut dice, nodes),
                apart: dice.millis(0, 2_000),
                frozen: freeze(&mut dice),
            },
        };
        Self { number, quiet, deed }
    }
}

fn node(dice: &mut Dice, nodes: usize) -> usize {
    usize::try_from(dice.below(nodes.max(1) as u64)).unwrap_or(0)
}

fn victim(dice: &mut Dice, nodes: usize) -> Victim {
    match dice.below(4) {
        0 => Victim::Controller,
        1 => Victim::MostLeader,
        _ => Victim::Node(node(dice, nodes)),
    }
}

/// Half of the freezes end before the controller notices (nine seconds), half after it; the longest
/// are far longer than `request.timeout.ms` of some of the producers.
fn freeze(dice: &mut Dice) -> Duration {
    if dice.below(2) == 0 { dice.millis(1_000, 9_000) } else { dice.millis(9_000, 25_000) }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::MostLeader => f.write_str("the leader of most"),
            Self::Controller => f.write_str("the controller"),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { victim, down } => write!(f, "kill {victim} for {down:.1?}"),
            Self::Freeze { victim, frozen } => write!(f, "freeze {victim} for {frozen:.1?}"),
            Self::Stutter { victim, times, frozen, between } => {
                write!(f, "freeze {victim} {times} times for {frozen:.1?}, every {between:.1?}")
            }
            Self::FreezeAndKill { victim, frozen, down } => {
                write!(f, "freeze {victim} for {frozen:.1?} and kill it for {down:.1?}")
            }
            Self::Roll { first, down } => write!(f, "restart all, node {first} first, each down for {down:.1?}"),
            Self::KillTwo { first, apart, down } => {
                write!(f, "kill {first} and, {apart:.1?} later, the next for {down:.1?}")
            }
            Self::FreezeTwo { first, apart, frozen } => {
                write!(f, "freeze {first} and, {apart:.1?} later, the next for {frozen:.1?}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::*;

    #[test]
    fn same_seed_generates_same_rounds() {
        let rounds = |seed| (1..50).map(|number| Round::new(seed, number, 3)).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
        assert_ne!(Round::new(7, 1, 3).deed, Round::new(7, 2, 3).deed);
    }

    #[test]
    fn rounds_cover_every_fault_and_node() {
        let rounds: Vec<Round> = (1..400).map(|number| Round::new(1, number, 3)).collect();
        let deeds: HashSet<_> = rounds.iter().map(|round| discriminant(&round.deed)).collect();
        assert_eq!(deeds.len(), 7);
        let killed: HashSet<String> = rounds
            .iter()
            .filter_map(|round| match &round.deed {
                Deed::Kill { victim, .. } => Some(victim.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(killed.len(), 5, "{killed:?}");
    }
}
