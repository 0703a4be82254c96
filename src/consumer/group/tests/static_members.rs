//! Scenarios of static members (KIP-345).

use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    error::ErrorCode,
    testkit::on,
    tests::{for_each_group_protocol, heartbeat},
};

for_each_group_protocol!(static_member_restarts_without_rebalance, fenced_static_member_rejoins_at_once,);

async fn static_member_restarts_without_rebalance(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::fixed(&cluster, protocol, "a");
    let mut second = Member::fixed(&cluster, protocol, "b");
    let share = first.owns_so_many(2).await;
    second.owns_so_many(2).await;
    let (generation, assigned) = (group(&cluster).generation, second.now().assigned);

    first.handle.close(soon()).await.unwrap();
    assert_eq!(group(&cluster).members.len(), 2, "it stays");
    sleep(session(protocol) * 2 / 3).await;
    let mut again = Member::fixed(&cluster, protocol, "a");
    again.owns(share).await;
    sleep(session(protocol) * 3).await;
    assert_eq!(group(&cluster).generation, generation);
    assert_eq!((second.now().assigned, again.now().lost), (assigned, 0));
}

async fn fenced_static_member_rejoins_at_once(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let mut member = Member::fixed(&cluster, protocol, "a");
    member.owns(partitions("t", 0..4)).await;
    let fenced = match protocol {
        GroupProtocol::Classic => ErrorCode::ILLEGAL_GENERATION,
        GroupProtocol::Consumer => ErrorCode::FENCED_MEMBER_EPOCH,
    };
    for code in [fenced, ErrorCode::UNKNOWN_MEMBER_ID] {
        let lost = member.now().lost;
        cluster.fault(on(heartbeat(protocol)).error(code));
        member.until("losing everything", |heard| heard.lost == lost + 1).await;
        let begun = Instant::now();
        member.owns(partitions("t", 0..4)).await;
        assert!(begun.elapsed() < SECOND * 5, "it does not wait for its own session");
    }
    assert!(member.now().errors.is_empty());
}
