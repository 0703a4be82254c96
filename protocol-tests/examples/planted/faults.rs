//! Faults of the brokers, chosen by the seed.

use std::time::Duration;

use ottla::{
    ApiKey, ErrorCode,
    testkit::{Cluster, Fault, on},
};

use crate::run::Dice;

/// Plants one fault that strikes the next requests of its kind.
pub(crate) fn plant(cluster: &Cluster, dice: &mut Dice) {
    let pause = Duration::from_millis(200 + dice.roll(4_000));
    let end = || on(ApiKey::EndTxn);
    let produce = || on(ApiKey::Produce);
    let offsets = || on(ApiKey::TxnOffsetCommit);
    let fault: Fault = match dice.roll(20) {
        0 => end().drop_connection(),
        1 => end().act_then_drop(),
        2 => end().error(ErrorCode::NOT_COORDINATOR).times(2),
        3 => end().delay_response(pause),
        4 => {
            // The commit has its effect, and the repeat is refused.
            let _ = cluster.fault(end().act_then_drop());
            end().skip(1).error(ErrorCode::INVALID_PRODUCER_ID_MAPPING)
        }
        5 => produce().drop_connection(),
        6 => produce().act_then_drop(),
        7 => produce().error(ErrorCode::NOT_ENOUGH_REPLICAS).times(3),
        8 => produce().act_then_error(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        9 | 10 => produce().error(ErrorCode::INVALID_RECORD),
        11 => produce().delay(pause),
        12 => produce().delay_response(pause),
        13 => offsets().drop_connection(),
        14 => offsets().act_then_drop(),
        15 => offsets().delay(pause),
        16 => offsets().error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS).times(2),
        17 => on(ApiKey::AddPartitionsToTxn).act_then_drop(),
        18 => on(ApiKey::AddOffsetsToTxn).drop_connection(),
        _ => on(ApiKey::FindCoordinator).error(ErrorCode::COORDINATOR_NOT_AVAILABLE).times(2),
    };
    let _ = cluster.fault(fault);
}
