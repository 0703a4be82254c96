//! The scenarios: actions on members and brokers, and their expected results.

use std::time::Duration;

use crate::Failure;
use crate::args::Setting;
use crate::stage::Stage;

/// A timeout shorter than the broker's minimum would be refused.
const SHORT_SESSION: Duration = Duration::from_secs(6);
/// Longer than any broker is down.
const LONG_SESSION: Duration = Duration::from_secs(60);
const MEMBERS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    MemberClean,
    MemberHard,
    MemberFrozen,
    BrokerClean,
    BrokerHard,
    StaticBounce,
    Fencing,
}

impl Scenario {
    pub(crate) const ALL: [Self; 7] = [
        Self::MemberClean,
        Self::MemberHard,
        Self::MemberFrozen,
        Self::BrokerClean,
        Self::BrokerHard,
        Self::StaticBounce,
        Self::Fencing,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MemberClean => "member-clean",
            Self::MemberHard => "member-hard",
            Self::MemberFrozen => "member-frozen",
            Self::BrokerClean => "broker-clean",
            Self::BrokerHard => "broker-hard",
            Self::StaticBounce => "static-bounce",
            Self::Fencing => "fencing",
        }
    }
}

pub(crate) async fn run(scenario: Scenario, mut stage: Stage<'_>) -> Result<String, Failure> {
    let is_given_up = matches!(scenario, Scenario::MemberHard | Scenario::MemberFrozen);
    let session = if is_given_up { SHORT_SESSION } else { LONG_SESSION };
    stage.give_up_members_after(session).await?;
    let is_static = matches!(scenario, Scenario::StaticBounce | Scenario::Fencing);
    for number in 0..MEMBERS {
        let instance = is_static.then(|| format!("instance-{number}"));
        stage.start_member(instance.as_deref(), session)?;
    }
    stage.shared_out(MEMBERS).await?;
    stage.start_producer()?;
    stage.goes_on(300).await?;
    match scenario {
        Scenario::MemberClean => members(&mut stage, true).await?,
        Scenario::MemberHard => members(&mut stage, false).await?,
        Scenario::MemberFrozen => frozen(&mut stage).await?,
        Scenario::BrokerClean => brokers(&mut stage, true).await?,
        Scenario::BrokerHard => brokers(&mut stage, false).await?,
        Scenario::StaticBounce => static_bounce(&mut stage).await?,
        // With KIP-848 the second member with an instance id is refused, and the first is not
        // fenced.
        Scenario::Fencing if stage.setting == Setting::Consumer => refusal(&mut stage).await?,
        Scenario::Fencing => fencing(&mut stage).await?,
    }
    stage.goes_on(300).await?;
    // A commit may be lost with a member or a broker; its records are then consumed again.
    let may_repeat = is_given_up || matches!(scenario, Scenario::BrokerHard | Scenario::Fencing);
    stage.finish(may_repeat).await
}

/// Stops each member in turn: the others take over, and it comes back.
async fn members(stage: &mut Stage<'_>, clean: bool) -> Result<(), Failure> {
    for seat in 0..MEMBERS {
        if clean {
            stage.stop(seat).await?;
        } else {
            stage.kill(seat)?;
        }
        stage.shared_out(MEMBERS - 1).await?;
        stage.goes_on(100).await?;
        stage.replace(seat)?;
        stage.shared_out(MEMBERS).await?;
        stage.goes_on(100).await?;
    }
    Ok(())
}

/// Freezes each member in turn for longer than its session timeout: the others take over, and it
/// wakes up. It has lost its partitions, and gets a share like a new member.
async fn frozen(stage: &mut Stage<'_>) -> Result<(), Failure> {
    for seat in 0..MEMBERS {
        stage.freeze(seat)?;
        stage.shared_out(MEMBERS - 1).await?;
        stage.goes_on(100).await?;
        stage.thaw(seat)?;
        stage.shared_out(MEMBERS).await?;
        stage.goes_on(100).await?;
    }
    Ok(())
}

/// Stops and restarts each broker in turn, among them the coordinator: no member rebalances.
async fn brokers(stage: &mut Stage<'_>, clean: bool) -> Result<(), Failure> {
    let before = stage.rebalances();
    for node in stage.kafka.nodes() {
        if clean {
            node.stop().await?;
        } else {
            node.kill()?;
        }
        stage.goes_on(100).await?;
        node.start()?;
        stage.kafka.ready().await?;
        stage.goes_on(100).await?;
    }
    let after = stage.rebalances();
    if after != before {
        return Err(format!("members rebalanced while brokers were bounced: {before:?}, then {after:?}").into());
    }
    Ok(())
}

/// Stops each static member in turn cleanly and restarts it: it gets its partitions back, and the
/// other members do not notice.
async fn static_bounce(stage: &mut Stage<'_>) -> Result<(), Failure> {
    for seat in 0..MEMBERS {
        let before = stage.rebalances();
        let had = stage.member(seat).assigned.clone();
        stage.stop(seat).await?;
        stage.replace(seat)?;
        stage.until("the member has its partitions again", |stage| stage.member(seat).assigned == had).await?;
        stage.goes_on(200).await?;
        let after = stage.rebalances();
        for other in (0..MEMBERS).filter(|other| *other != seat) {
            if after[other] != before[other] {
                let (before, after) = (before[other], after[other]);
                return Err(format!("member {other} rebalanced while {seat} was bounced: {before:?}, {after:?}").into());
            }
        }
    }
    Ok(())
}

/// Starts a second member with the instance id of each member in turn: the first is fenced and
/// ends, and the others do not notice.
async fn fencing(stage: &mut Stage<'_>) -> Result<(), Failure> {
    for seat in 0..MEMBERS {
        let before = stage.rebalances();
        let had = stage.member(seat).assigned.clone();
        // The fenced member does not learn of it at once, and still regards its partitions as its
        // own.
        let member = stage.seats[seat].member;
        stage.ledger.hurt(member);
        stage.replace(seat)?;
        stage
            .until("the member with the same name is fenced", |stage| stage.last_gone().is_some_and(|gone| gone.ended))
            .await?;
        stage.until("the new member has its partitions", |stage| stage.member(seat).assigned == had).await?;
        stage.goes_on(200).await?;
        let after = stage.rebalances();
        for other in (0..MEMBERS).filter(|other| *other != seat) {
            if after[other] != before[other] {
                return Err(format!("member {other} rebalanced while {seat} was fenced").into());
            }
        }
    }
    Ok(())
}

/// Starts a second member with the instance id of each member in turn: it gets nothing while the
/// first is there, and its coming and going is not noticed by any member.
async fn refusal(stage: &mut Stage<'_>) -> Result<(), Failure> {
    for seat in 0..MEMBERS {
        let before = stage.rebalances();
        let second = stage.second(seat)?;
        stage.until("the member with the same name has started", |stage| stage.ledger.member(second).started).await?;
        // Time to join; Java's program ends by itself then.
        stage.goes_on(1000).await?;
        if !stage.ledger.member(second).assigned.is_empty() {
            return Err(format!("a second member by the name of {seat} was assigned something").into());
        }
        stage.send_away(second).await?;
        stage.goes_on(200).await?;
        let after = stage.rebalances();
        if after != before {
            return Err(format!("members rebalanced for a member that was refused: {before:?}, then {after:?}").into());
        }
    }
    Ok(())
}
