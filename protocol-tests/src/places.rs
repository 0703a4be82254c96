//! Directories and ports.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// Time for which the files of a failed run are kept for inspection.
const KEEP: Duration = Duration::from_secs(3600);

/// Below every system's range of ephemeral ports (Linux 32768, macOS 49152): a node that is down
/// must find its port free when it comes back, and no outgoing connection may have taken it
/// meanwhile.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Returns the directory for all files, `target/kafka`, so that `cargo clean` removes them.
pub(crate) fn root() -> PathBuf {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("target"),
    };
    std::path::absolute(target.join("kafka")).unwrap_or_else(|_| target.join("kafka"))
}

/// A directory of one cluster or one tool's run, removed when it is dropped, unless a test is
/// panicking, because its logs are needed then. `KEEP_KAFKA_FILES=1` keeps the files always, for
/// tests that fail by returning an error.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    keep: bool,
    /// Locked as long as this process lives, so that no other process takes the directory for a
    /// leftover.
    _owner: File,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let run = root().join("run");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = run.join(format!("{name}-{}-{number}", std::process::id()));
        let make = || -> io::Result<Self> {
            if number == 0 {
                fs::create_dir_all(&run)?;
                sweep(&run)?;
            }
            if path.exists() {
                // Left by an earlier process with the same pid.
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir_all(&path)?;
            let owner = File::create(path.join("owner"))?;
            owner.lock()?;
            Ok(Self { path: path.clone(), keep: false, _owner: owner })
        };
        make().map_err(Error::io(format!("making {}", path.display())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() || std::env::var_os("KEEP_KAFKA_FILES").is_some() {
            crate::say(&format!("files kept for inspection: {}", self.path.display()));
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            crate::say(&format!("{} could not be removed: {error}", self.path.display()));
        }
    }
}

/// Removes old directories of processes that failed or were killed.
fn sweep(run: &Path) -> io::Result<()> {
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        // Another process may be sweeping too, so a file that is already gone is not an error.
        let Ok(age) =
            fs::metadata(&path).and_then(|meta| meta.modified()).map(|at| SystemTime::now().duration_since(at))
        else {
            continue;
        };
        if age.is_ok_and(|age| age > KEEP)
            && File::open(path.join("owner")).is_ok_and(|owner| owner.try_lock().is_ok())
            && let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Finds loopback ports on which no process listens.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    const TRIES: usize = 1000;
    let span = u64::from(PORTS.end - PORTS.start);
    let mut held: Vec<(u16, TcpListener)> = Vec::with_capacity(count);
    for _ in 0..TRIES {
        if held.len() == count {
            break;
        }
        let random = RandomState::new().build_hasher().finish() % span;
        let port = PORTS.start + u16::try_from(random).unwrap_or_default();
        // Kept open until all are found, so that none is found twice.
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        return Err(Error::Unavailable(format!("no {count} free ports in {PORTS:?}")));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_distinct_ports_outside_ephemeral_range() {
        let ports = free_ports(20).expect("ports");
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 20);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn removes_scratch_directory_on_drop() {
        let scratch = Scratch::new("places").expect("directory");
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), b"x").expect("file");
        drop(scratch);
        assert!(!path.exists());
    }
}
