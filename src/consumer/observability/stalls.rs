//! Observes the progress of all partitions, and logs those that make none.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    consumer::{
        observability::{
            log_digest::{LogDigest, Stall},
            partition_status::{WaitReasons, progress_of},
            wait_reason::{WaitReason, error_field},
        },
        subscription::{partitions::Partitions, wanted_topics::WantedTopics},
    },
    log::{event, several},
    record::TopicPartition,
};

/// Observes every partition. Logs at DEBUG the reasons that changed. Logs at WARN the partitions
/// that have made no progress for `patience` although they do not wait for the user: one line for
/// each cause, repeated every minute. Logs one line at INFO when they make progress again.
pub(crate) fn observe(
    partitions: &mut Partitions,
    reasons: &WaitReasons<'_>,
    wanted_topics: &WantedTopics,
    journal: &mut LogDigest,
    patience: Duration,
    now: Instant,
) {
    let origin = &reasons.rules.origin;
    let mut stalls: BTreeMap<String, Stall> = BTreeMap::new();
    let (mut is_new, mut moving, mut longest) = (false, Vec::new(), Duration::ZERO);
    for (partition, state) in partitions.iter_mut() {
        let (waiting, _) = reasons.of(partition, state, now);
        let (at, reason) = (progress_of(state), waiting.name());
        let sample = &mut state.offsets.sample;
        let has_moved = sample.at != Some(at);
        if has_moved || sample.reason != reason {
            sample.since = Some(now);
        }
        if sample.reason != reason {
            event!(DEBUG, origin, %partition, reason, error = error_field(&waiting), "the partition waits");
        }
        // Reasons may alternate (an attempt, a wait, an attempt …): that is no progress.
        if has_moved || waiting.is_for_user() || waiting.is_idle() {
            if sample.warned {
                longest = longest.max(sample.stuck_for(now));
                moving.push(partition.clone());
            }
            (sample.stuck, sample.warned) = (Some(now), false);
        }
        (sample.at, sample.reason) = (Some(at), reason);
        let stuck = sample.stuck_for(now);
        // A missing topic is reported as such, not by its partitions.
        if stuck < patience || wanted_topics.is_absent(&partition.topic) {
            continue;
        }
        is_new |= !sample.warned;
        let error = match waiting {
            WaitReason::BackingOff(error) => Some(error),
            _ => state.offsets.error.clone(),
        };
        let cause = match &error {
            Some(error) => error.code().map_or_else(|| format!("{:?}", error.kind()), |code| code.to_string()),
            None => reason.to_owned(),
        };
        stalls.entry(cause).or_default().add(partition, error, stuck);
    }
    if !stalls.is_empty() && journal.is_due_for_stalls(is_new, now) {
        stalls.iter().for_each(|(cause, stall)| stall.write(cause, origin));
        mark_warned(partitions, stalls);
    }
    if !moving.is_empty() {
        let (count, stalled_s) = (moving.len(), longest.as_secs());
        let partitions = several(&moving);
        event!(INFO, origin, %partitions, count, stalled_s, "stalled partitions make progress again");
    }
    journal.write(origin, now);
}

/// Marks the stalled partitions as logged.
fn mark_warned(partitions: &mut Partitions, stalls: BTreeMap<String, Stall>) {
    let stalled: Vec<TopicPartition> = stalls.into_values().flat_map(|stall| stall.partitions).collect();
    for partition in stalled {
        if let Some(state) = partitions.get_mut(&partition) {
            state.offsets.sample.warned = true;
        }
    }
}
