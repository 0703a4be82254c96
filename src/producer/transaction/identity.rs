//! The producer ids and epochs that an answer may bring.
//!
//! Sans-IO.

use crate::producer::idempotence::ProducerId;

/// The last epoch of a producer id that a producer may use: the coordinator keeps 32767 to fence
/// it.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// An answer's producer id and epoch, judged against those that the request named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Assigned {
    /// The producer continues with this identity.
    Valid(ProducerId),
    /// The answer names no producer: it is handled like one that did not come.
    Malformed,
    /// The answer names another producer's identity.
    Foreign,
}

/// Judges an answer to InitProducerId. `sent` is the identity whose epoch was to be raised: the
/// coordinator answers its next epoch, or another id once its epochs are used up.
pub(crate) fn after_init(sent: Option<ProducerId>, id: i64, epoch: i16) -> Assigned {
    if id < 0 || !(0..=LAST_EPOCH).contains(&epoch) {
        return Assigned::Malformed;
    }
    match sent {
        Some(sent) if sent.id == id && epoch <= sent.epoch => Assigned::Foreign,
        _ => Assigned::Valid(ProducerId { id, epoch }),
    }
}

/// Judges the identity of the next transaction in an answer to EndTxn 5.
pub(crate) fn after_end(sent: ProducerId, id: i64, epoch: i16) -> Assigned {
    let is_next_epoch = id == sent.id && sent.epoch < LAST_EPOCH && epoch == sent.epoch + 1;
    let is_next_id = id >= 0 && id != sent.id && epoch == 0 && sent.epoch >= LAST_EPOCH;
    if is_next_epoch || is_next_id {
        Assigned::Valid(ProducerId { id, epoch })
    } else if id < 0 || epoch < 0 {
        Assigned::Malformed
    } else {
        Assigned::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(id: i64, epoch: i16) -> ProducerId {
        ProducerId { id, epoch }
    }

    #[test]
    fn first_initialization_takes_any_usable_epoch() {
        assert_eq!(after_init(None, 7, 0), Assigned::Valid(at(7, 0)));
        assert_eq!(after_init(None, 7, 32766), Assigned::Valid(at(7, 32766)));
        for (id, epoch) in [(-1, 0), (7, -1), (7, 32767)] {
            assert_eq!(after_init(None, id, epoch), Assigned::Malformed, "{id} {epoch}");
        }
    }

    #[test]
    fn raised_epoch_is_higher_or_another_id() {
        let sent = Some(at(7, 4));
        assert_eq!(after_init(sent, 7, 5), Assigned::Valid(at(7, 5)));
        assert_eq!(after_init(sent, 8, 0), Assigned::Valid(at(8, 0)));
        for epoch in [0, 3, 4] {
            assert_eq!(after_init(sent, 7, epoch), Assigned::Foreign, "{epoch}");
        }
    }

    #[test]
    fn end_of_transaction_brings_next_epoch_only() {
        assert_eq!(after_end(at(7, 4), 7, 5), Assigned::Valid(at(7, 5)));
        for (id, epoch) in [(7, 4), (7, 6), (8, 0), (8, 5)] {
            assert_eq!(after_end(at(7, 4), id, epoch), Assigned::Foreign, "{id} {epoch}");
        }
        assert_eq!(after_end(at(7, 4), -1, -1), Assigned::Malformed);
    }

    #[test]
    fn last_epoch_is_followed_by_another_id() {
        assert_eq!(after_end(at(7, 32766), 8, 0), Assigned::Valid(at(8, 0)));
        assert_eq!(after_end(at(7, 32766), 7, 32767), Assigned::Foreign);
        assert_eq!(after_end(at(7, 32765), 7, 32766), Assigned::Valid(at(7, 32766)));
    }
}
