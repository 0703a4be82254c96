//! A topic, a producer, and members of a group; their events go to the ledger.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol_tests::{Jars, Kafka, Program, unique};

use crate::Failure;
use crate::args::{Clients, Setting};
use crate::event::Event;
use crate::ledger::{Ledger, Member};

pub(crate) const PARTITIONS: usize = 6;
/// Generous, because a machine that runs three brokers and four more JVMs gives each of them little
/// time.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// Records per second.
const RATE: &str = "300";
/// Settings with which a producer survives restarts of brokers.
const PRODUCER: &str = "enable.idempotence=true\nretries=1000000\ndelivery.timeout.ms=120000\n";

/// A place in the group, which one member after the other takes.
pub(crate) struct Seat {
    pub(crate) member: usize,
    program: Program,
    java: bool,
    options: Vec<String>,
}

pub(crate) struct Stage<'k> {
    pub(crate) kafka: &'k Kafka,
    jars: &'k Jars,
    clients: Clients,
    pub(crate) setting: Setting,
    topic: String,
    group: String,
    config: PathBuf,
    pub(crate) ledger: Ledger,
    producer: Option<Program>,
    pub(crate) seats: Vec<Seat>,
    /// Members that have ended, for output that is still unread.
    gone: Vec<Seat>,
}

impl<'k> Stage<'k> {
    pub(crate) async fn new(
        kafka: &'k Kafka,
        jars: &'k Jars,
        clients: Clients,
        setting: Setting,
    ) -> Result<Self, Failure> {
        let topic = unique("verifiable");
        kafka.create_topic(&topic, PARTITIONS.try_into()?, 3, &[("min.insync.replicas", "2")]).await?;
        let config = std::env::temp_dir().join(format!("{topic}.properties"));
        std::fs::write(&config, PRODUCER)?;
        Ok(Self {
            kafka,
            jars,
            clients,
            setting,
            group: unique("group"),
            topic,
            config,
            ledger: Ledger::default(),
            producer: None,
            seats: Vec::new(),
            gone: Vec::new(),
        })
    }

    fn start(&self, name: &str, class: &str, java: bool, args: &[String]) -> Result<Program, Failure> {
        if java {
            return Ok(Program::java(name, self.jars, &format!("org.apache.kafka.tools.{class}"), args)?);
        }
        let file = if class == "VerifiableProducer" { "verifiable_producer" } else { "verifiable_consumer" };
        let path = std::env::current_exe()?.with_file_name(file);
        if !path.is_file() {
            let message = format!("{} is missing: run `cargo build --examples`, in the same profile", path.display());
            return Err(message.into());
        }
        Ok(Program::spawn(name, path, args)?)
    }

    pub(crate) fn start_producer(&mut self) -> Result<(), Failure> {
        let config = self.config.display().to_string();
        let bootstrap = self.kafka.bootstrap();
        let args = ["--bootstrap-server", &bootstrap, "--topic", &self.topic, "--throughput", RATE, "--command-config"];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.push(config);
        let java = self.clients == Clients::Java;
        self.producer = Some(self.start("the producer", "VerifiableProducer", java, &args)?);
        Ok(())
    }

    /// Sets the session timeout. With KIP-848 it belongs to the group, and not to each member.
    pub(crate) async fn give_up_members_after(&self, session: Duration) -> Result<(), Failure> {
        if self.setting == Setting::Consumer {
            let session = session.as_millis().to_string();
            self.kafka.configure_group(&self.group, &[("consumer.session.timeout.ms", &session)]).await?;
        }
        Ok(())
    }

    /// Starts another member, static if it has a name; it takes the next seat.
    pub(crate) fn start_member(&mut self, instance: Option<&str>, session: Duration) -> Result<usize, Failure> {
        let number = self.seats.len();
        let java = match self.clients {
            Clients::Ottla => false,
            Clients::Java => true,
            Clients::Mixed => number % 2 == 1,
        };
        let mut options: Vec<String> = [
            "--bootstrap-server",
            &self.kafka.bootstrap(),
            "--topic",
            &self.topic,
            "--group-id",
            &self.group,
            "--verbose",
        ]
        .map(str::to_owned)
        .to_vec();
        options.extend(self.setting.options());
        if self.setting != Setting::Consumer {
            options.extend(["--session-timeout".to_owned(), session.as_millis().to_string()]);
        }
        options.extend(instance.into_iter().flat_map(|name| ["--group-instance-id".to_owned(), name.to_owned()]));
        let seat = self.seat(java, options, &format!("member {number}"))?;
        self.seats.push(seat);
        Ok(number)
    }

    fn seat(&mut self, java: bool, options: Vec<String>, name: &str) -> Result<Seat, Failure> {
        let kind = if java { "java" } else { "ottla" };
        let program = self.start(&format!("{name} ({kind})"), "VerifiableConsumer", java, &options)?;
        Ok(Seat { member: self.ledger.new_member(), program, java, options })
    }

    /// Starts another member in a seat, with the settings of the one before.
    pub(crate) fn replace(&mut self, seat: usize) -> Result<(), Failure> {
        let (java, options) = (self.seats[seat].java, self.seats[seat].options.clone());
        let new = self.seat(java, options, &format!("member {seat}"))?;
        let old = std::mem::replace(&mut self.seats[seat], new);
        self.gone.push(old);
        Ok(())
    }

    /// Starts a second member with the same instance id as the one in that seat; it has no seat,
    /// and nothing is expected of it.
    pub(crate) fn second(&mut self, seat: usize) -> Result<usize, Failure> {
        let (java, options) = (self.seats[seat].java, self.seats[seat].options.clone());
        let second = self.seat(java, options, &format!("second member {seat}"))?;
        let member = second.member;
        self.ledger.hurt(member);
        self.gone.push(second);
        Ok(member)
    }

    /// Ends a member without a seat, unless it has ended by itself.
    pub(crate) async fn send_away(&mut self, member: usize) -> Result<(), Failure> {
        let Some(seat) = self.gone.iter_mut().find(|seat| seat.member == member) else { return Ok(()) };
        if seat.program.is_running()? {
            seat.program.terminate()?;
        }
        seat.program.ended(PATIENCE).await?;
        self.listen()
    }

    pub(crate) fn member(&self, seat: usize) -> &Member {
        self.ledger.member(self.seats[seat].member)
    }

    /// Returns the member that left its seat last.
    pub(crate) fn last_gone(&self) -> Option<&Member> {
        self.gone.last().map(|seat| self.ledger.member(seat.member))
    }

    /// Ends the member in that seat cleanly, and waits for it.
    pub(crate) async fn stop(&mut self, seat: usize) -> Result<(), Failure> {
        self.seats[seat].program.terminate()?;
        self.until("a member reports its end after it was asked to end", |stage| stage.member(seat).ended).await?;
        self.seats[seat].program.ended(PATIENCE).await?;
        Ok(())
    }

    pub(crate) fn kill(&mut self, seat: usize) -> Result<(), Failure> {
        self.seats[seat].program.kill()?;
        // Its output from before it died counts.
        self.listen()?;
        self.ledger.hurt(self.seats[seat].member);
        Ok(())
    }

    /// Freezes the member in that seat; its partitions no longer count.
    pub(crate) fn freeze(&mut self, seat: usize) -> Result<(), Failure> {
        self.seats[seat].program.freeze()?;
        self.listen()?;
        self.ledger.hurt(self.seats[seat].member);
        Ok(())
    }

    pub(crate) fn thaw(&mut self, seat: usize) -> Result<(), Failure> {
        self.ledger.woke_up(self.seats[seat].member);
        Ok(self.seats[seat].program.thaw()?)
    }

    /// Reads the output of all members.
    pub(crate) fn listen(&mut self) -> Result<(), Failure> {
        if let Some(producer) = &mut self.producer {
            for line in producer.lines()? {
                Event::read(&line).into_iter().for_each(|(_, event)| self.ledger.produced(event));
            }
        }
        for seat in self.gone.iter_mut().chain(&mut self.seats) {
            for line in seat.program.lines()? {
                if let Some((now, event)) = Event::read(&line) {
                    self.ledger.heard(seat.member, seat.program.name(), now, event);
                }
            }
        }
        Ok(())
    }

    /// Reads output until the condition is true.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            self.listen()?;
            if condition(self) {
                return Ok(());
            }
            for seat in &mut self.seats {
                let member = self.ledger.member(seat.member);
                if !member.hurt && !member.ended && !seat.program.is_running()? {
                    return Err(format!("{} ended by itself: {}", seat.program.name(), seat.program.errors()).into());
                }
            }
            if began.elapsed() > PATIENCE {
                let shares: Vec<_> = self.seats.iter().map(|seat| self.ledger.member(seat.member)).collect();
                let consumed = (self.ledger.acknowledged(), self.ledger.consumed());
                return Err(format!("not reached: {what}; {consumed:?}, {shares:?}").into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until all present members share all partitions.
    pub(crate) async fn shared_out(&mut self, members: usize) -> Result<(), Failure> {
        let what = format!("{members} members share {PARTITIONS} partitions");
        self.until(&what, |stage| stage.ledger.is_shared_out(PARTITIONS, members)).await
    }

    /// Waits until `records` more records were consumed.
    pub(crate) async fn goes_on(&mut self, records: usize) -> Result<(), Failure> {
        let goal = self.ledger.consumed() + records;
        self.until("records go on being consumed", |stage| stage.ledger.consumed() >= goal).await
    }

    /// Returns the numbers of assignments and revocations of each present member.
    pub(crate) fn rebalances(&self) -> Vec<(u32, u32)> {
        let of = |seat: &Seat| {
            let member = self.ledger.member(seat.member);
            (member.assignments, member.revocations)
        };
        self.seats.iter().map(of).collect()
    }

    /// Ends the producer, waits until everything is consumed, ends the members, and judges.
    pub(crate) async fn finish(mut self, may_repeat: bool) -> Result<String, Failure> {
        if let Some(producer) = &mut self.producer {
            producer.terminate()?;
            producer.ended(PATIENCE).await?;
        }
        self.until("all acknowledged records are consumed", |stage| stage.ledger.is_complete()).await?;
        for seat in 0..self.seats.len() {
            if !self.member(seat).ended && !self.member(seat).hurt {
                self.stop(seat).await?;
            }
        }
        self.listen()?;
        let _ = std::fs::remove_file(&self.config);
        // Java's program cannot commit in the middle of a cooperative rebalance, does not try
        // again, and then loses the partition.
        let javas: BTreeSet<usize> =
            self.gone.iter().chain(&self.seats).filter(|seat| seat.java).map(|seat| seat.member).collect();
        let excused = |member| self.setting.is_cooperative() && javas.contains(&member);
        let wrong = self.ledger.judge(|member| may_repeat || excused(member));
        if !wrong.is_empty() {
            return Err(wrong.join("; ").into());
        }
        let ledger = &self.ledger;
        let commits: u64 = ledger.members().map(|member| member.commits).sum();
        let failed: u64 = ledger.members().map(|member| member.commits_failed).sum();
        let (acknowledged, again) = (ledger.acknowledged(), ledger.consumed_again());
        Ok(format!(
            "{acknowledged} records acknowledged and consumed, {again} again, {} not sent, {commits} commits, {failed} failed",
            ledger.sends_failed
        ))
    }
}
