//! All copiers of a chain: they are started again whenever they end, and killed and frozen at
//! random.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use protocol_tests::Program;
use tokio::sync::watch;

use crate::Failure;
use crate::plan::Dice;
use crate::seat::{Orders, Seat};

const LOOK: Duration = Duration::from_millis(50);
/// The pause before a copier that ended is started again.
const PAUSE: Duration = Duration::from_millis(200);
/// Time within which a copier that was frozen and replaced has to end by itself.
const ZOMBIE: Duration = Duration::from_secs(60);
/// Time within which a copier has to end after SIGTERM. Java's own waits for brokers.
const END: Duration = Duration::from_secs(60);

/// Numbers of what happened to the copiers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happened {
    starts: u64,
    ended: u64,
    failed: u64,
    killed: u64,
    terminated: u64,
    frozen: u64,
    replaced: u64,
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} starts, {} reached the end, {} failed, {} killed, {} terminated, {} frozen, {} replaced while frozen",
            self.starts, self.ended, self.failed, self.killed, self.terminated, self.frozen, self.replaced
        )
    }
}

/// A process of a copier.
#[derive(Debug)]
struct Copier {
    program: Program,
    /// The time at which it continues, if it is frozen.
    thaws: Option<Instant>,
}

/// All copiers.
pub(crate) struct Fleet {
    orders: Orders,
    dice: Dice,
    seats: Vec<(Seat, Option<Copier>, Instant)>,
    /// Copiers whose seats others have taken, each with the time at which it must have ended.
    zombies: Vec<(Copier, Instant)>,
    /// True while copiers are to be harmed.
    harm: Arc<AtomicBool>,
    next_harm: Instant,
    pub(crate) happened: Happened,
    /// What was done, in order.
    pub(crate) notes: Vec<String>,
}

impl Fleet {
    pub(crate) fn new(orders: Orders, seed: u64, harm: Arc<AtomicBool>) -> Self {
        let args = &orders.args;
        let places = (0..args.stages).flat_map(|stage| (0..args.partitions).map(move |partition| (stage, partition)));
        let clients = args.clients[0];
        let seats = places.map(|(stage, partition)| {
            let java = clients.is_java(stage, partition);
            (Seat { stage, partition, java, starts: 0 }, None, Instant::now())
        });
        Self {
            seats: seats.collect(),
            orders,
            dice: Dice::new(seed),
            zombies: Vec::new(),
            harm,
            next_harm: Instant::now(),
            happened: Happened::default(),
            notes: Vec::new(),
        }
    }

    /// Runs the copiers until they are stopped, and returns when all have ended.
    pub(crate) async fn run(mut self, stopped: watch::Receiver<bool>) -> Result<Self, Failure> {
        while !*stopped.borrow() {
            self.restart()?;
            self.thaw()?;
            if self.harm.load(SeqCst) && Instant::now() >= self.next_harm {
                self.harm_one()?;
                self.next_harm = Instant::now() + Duration::from_millis(500 + self.dice.below(4_000));
            }
            tokio::time::sleep(LOOK).await;
        }
        self.finish().await?;
        Ok(self)
    }

    /// Starts the copiers that have ended.
    fn restart(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        for (seat, copier, start_at) in &mut self.seats {
            if let Some(running) = copier {
                if running.program.is_running()? {
                    continue;
                }
                // The status of a process that has ended is there at once.
                match running.program.status()?.is_some_and(|status| status.success()) {
                    true => self.happened.ended += 1,
                    false => {
                        self.happened.failed += 1;
                        self.notes.push(format!("{} failed: {}", seat.name(), last_error(&running.program.errors())));
                    }
                }
                *copier = None;
                *start_at = now + PAUSE;
            }
            if now >= *start_at {
                *copier = Some(Copier { program: seat.start(&self.orders)?, thaws: None });
                self.happened.starts += 1;
            }
        }
        Ok(())
    }

    fn thaw(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let seated = self.seats.iter_mut().filter_map(|(_, copier, _)| copier.as_mut());
        for copier in seated.chain(self.zombies.iter_mut().map(|(copier, _)| copier)) {
            if copier.thaws.is_some_and(|at| now >= at) {
                copier.program.thaw()?;
                copier.thaws = None;
            }
        }
        for (copier, deadline) in &mut self.zombies {
            if now >= *deadline && copier.program.is_running()? {
                self.notes.push(format!("{} still ran after it was replaced", copier.program.name()));
                copier.program.kill()?;
            }
        }
        let mut left = Vec::new();
        for (mut copier, deadline) in std::mem::take(&mut self.zombies) {
            if copier.program.is_running()? {
                left.push((copier, deadline));
            }
        }
        self.zombies = left;
        Ok(())
    }

    fn harm_one(&mut self) -> Result<(), Failure> {
        let at = usize::try_from(self.dice.below(self.seats.len() as u64))?;
        let what = self.dice.below(100);
        let frozen = Duration::from_millis(300 + self.dice.below(14_000));
        let (seat, copier, start_at) = &mut self.seats[at];
        let Some(running) = copier.as_mut().filter(|copier| copier.thaws.is_none()) else { return Ok(()) };
        if !running.program.is_running()? {
            return Ok(());
        }
        let (name, now) = (seat.name(), Instant::now());
        match what {
            0..40 => {
                running.program.kill()?;
                self.happened.killed += 1;
                self.notes.push(format!("{name} killed"));
                *copier = None;
                *start_at = now + PAUSE;
            }
            40..50 => {
                running.program.terminate()?;
                self.happened.terminated += 1;
                self.notes.push(format!("{name} terminated"));
            }
            50..75 => {
                running.program.freeze()?;
                running.thaws = Some(now + frozen);
                self.happened.frozen += 1;
                self.notes.push(format!("{name} frozen for {frozen:.1?}"));
            }
            _ => {
                running.program.freeze()?;
                running.thaws = Some(now + frozen);
                self.happened.replaced += 1;
                self.notes.push(format!("{name} frozen for {frozen:.1?} and replaced"));
                self.zombies.extend(copier.take().map(|copier| (copier, now + frozen + ZOMBIE)));
                *start_at = now;
            }
        }
        Ok(())
    }

    /// Ends all copiers.
    async fn finish(&mut self) -> Result<(), Failure> {
        let seated = self.seats.iter_mut().filter_map(|(_, copier, _)| copier.take());
        let mut all: Vec<Copier> = seated.chain(self.zombies.drain(..).map(|(copier, _)| copier)).collect();
        for Copier { program, thaws } in &mut all {
            if program.is_running()? {
                program.terminate()?;
                if thaws.is_some() {
                    program.thaw()?;
                }
            }
        }
        for Copier { program, .. } in &mut all {
            if let Err(error) = program.ended(END).await {
                self.notes.push(format!("{} had to be killed: {error}", program.name()));
                program.kill()?;
            }
        }
        Ok(())
    }
}

/// Returns the last line that names an error.
fn last_error(text: &str) -> &str {
    let mut lines = text.trim_end().lines().rev();
    let named = lines.clone().find(|line| line.starts_with("error") || line.contains("rror "));
    named.or_else(|| lines.next()).unwrap_or("no message")
}
