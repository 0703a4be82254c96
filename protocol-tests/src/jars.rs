//! Kafka's jars, fetched once through Maven.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, tail};
use crate::leashed::Launch;
use crate::places;

const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const FETCH_TIMEOUT: Duration = Duration::from_secs(300);

/// A version of Apache Kafka, as `major.minor.patch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    /// Used for comparison, so that `3.10` is above `3.9`.
    pub(crate) number: (u32, u32, u32),
}

impl Version {
    /// Parses a version such as `4.3.1`.
    ///
    /// # Errors
    /// `Unfit` for anything but three numbers, or for a version before 2.8, the first with KRaft.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, patch]) if (major, minor) >= (2, 8) => {
                Ok(Self { text: text.to_owned(), number: (major, minor, patch) })
            }
            Some(&[_, _, _]) => Err(Error::Unfit(format!(
                "Kafka {text} has no KRaft, and ZooKeeper is not started here: 2.8.0 is the first version that works"
            ))),
            _ => Err(Error::Unfit(format!("{text:?} is not a version of Kafka such as 4.3.1"))),
        }
    }

    /// Returns the version as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The jars of one version, on this machine.
#[derive(Clone, Debug)]
pub struct Jars {
    version: Version,
    dir: PathBuf,
}

impl Jars {
    /// Returns the jars, fetching them if this is the first time. Other processes that need the
    /// same jars wait.
    ///
    /// # Errors
    /// `Unavailable` when `java` or `mvn` is missing or Maven cannot fetch.
    ///
    /// # Cancel safety
    /// A fetch that is dropped half-way leaves nothing that the next fetch would mistake for a
    /// complete one.
    pub async fn get(version: Version) -> Result<Self, Error> {
        need("java")?;
        let root = places::root();
        let dir = root.join(version.as_str());
        let jars = Self::at(version, dir);
        if jars.dir.is_dir() {
            return Ok(jars);
        }
        need("mvn")?;
        fs::create_dir_all(&root).map_err(Error::io(format!("making {}", root.display())))?;
        let deadline = Instant::now() + FETCH_TIMEOUT;
        let lock_path = root.join(format!("{}.lock", jars.version.as_str()));
        let lock = File::create(&lock_path).map_err(Error::io(format!("making {}", lock_path.display())))?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::TimedOut {
                        what: "another process's fetch of Kafka's jars".into(),
                        after: FETCH_TIMEOUT,
                        log: String::new(),
                    });
                }
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Io { what: format!("locking {}", lock_path.display()), source });
                }
            }
        }
        if !jars.dir.is_dir() {
            jars.fetch(&root, deadline).await?;
        }
        Ok(jars)
    }

    /// Returns the jars in this directory.
    pub(crate) fn at(version: Version, dir: PathBuf) -> Self {
        Self { version, dir }
    }

    async fn fetch(&self, root: &Path, deadline: Instant) -> Result<(), Error> {
        let version = self.version.as_str();
        crate::say(&format!("fetching Kafka {version} through Maven, once"));
        let part = root.join(format!("{version}.part"));
        let log = root.join(format!("{version}.log"));
        let prepare = || -> std::io::Result<(File, File)> {
            if part.exists() {
                fs::remove_dir_all(&part)?;
            }
            fs::create_dir_all(&part)?;
            fs::write(part.join("pom.xml"), pom(version))?;
            let out = File::create(&log)?;
            let err = out.try_clone()?;
            Ok((out, err))
        };
        let (out, err) = prepare().map_err(Error::io(format!("preparing {}", part.display())))?;
        let mut maven = Launch::new("mvn")
            .args(["-q", "-B", PLUGIN, "-DincludeScope=runtime", "-DoutputDirectory=jars"])
            .dir(&part)
            .spawn(out, err)
            .map_err(Error::io("starting mvn"))?;
        match maven.wait_until(deadline).await.map_err(Error::io("waiting for mvn"))? {
            Some(status) if status.success() => {}
            Some(status) => {
                return Err(Error::Unavailable(format!(
                    "Maven could not fetch Kafka {version} ({status}): {}",
                    tail(&[log])
                )));
            }
            None => {
                return Err(Error::Unavailable(format!(
                    "Maven did not fetch Kafka {version} within {FETCH_TIMEOUT:?}"
                )));
            }
        }
        fs::rename(part.join("jars"), &self.dir).map_err(Error::io(format!("moving {}", part.display())))?;
        fs::remove_dir_all(&part).map_err(Error::io(format!("removing {}", part.display())))
    }

    /// Returns the version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Returns the argument of `java -cp`.
    pub fn class_path(&self) -> String {
        format!("{}/*", self.dir.display())
    }

    /// Returns the first of these classes that this version has: Kafka's tools moved from one
    /// package to another over time.
    ///
    /// # Errors
    /// `Unfit` when there is none.
    pub fn first_class<'a>(&self, candidates: &[&'a str]) -> Result<&'a str, Error> {
        // A jar's directory of names is not compressed, so searching the bytes is enough.
        let mut found = HashSet::new();
        let listing = fs::read_dir(&self.dir).map_err(Error::io(format!("listing {}", self.dir.display())))?;
        for entry in listing {
            let path = entry.map_err(Error::io("listing jars"))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !(name.starts_with("kafka-tools-") || name.starts_with("kafka_2.13-")) {
                continue;
            }
            let jar = fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))?;
            for candidate in candidates {
                let file = format!("{}.class", candidate.replace('.', "/"));
                if jar.windows(file.len()).any(|window| window == file.as_bytes()) {
                    found.insert(*candidate);
                }
            }
        }
        candidates.iter().find(|candidate| found.contains(*candidate)).copied().ok_or_else(|| {
            Error::Unfit(format!("Kafka {} has none of {}", self.version.as_str(), candidates.join(", ")))
        })
    }
}

/// Returns true if a program is on PATH.
pub(crate) fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

pub(crate) fn need(program: &str) -> Result<(), Error> {
    if on_path(program) {
        return Ok(());
    }
    Err(Error::Unavailable(format!("`{program}` is not on PATH")))
}

/// Returns a POM with Kafka and its tools, with a logger that writes to standard error instead of
/// the version's own, and without Connect, which only an unused tool needs.
fn pom(version: &str) -> String {
    const UNWANTED: [(&str, &str); 9] = [
        ("org.slf4j", "slf4j-reload4j"),
        ("org.slf4j", "slf4j-log4j12"),
        ("org.apache.logging.log4j", "log4j-slf4j-impl"),
        ("org.apache.logging.log4j", "log4j-slf4j2-impl"),
        ("ch.qos.logback", "logback-classic"),
        ("org.apache.kafka", "connect-api"),
        ("org.apache.kafka", "connect-json"),
        ("org.apache.kafka", "connect-runtime"),
        ("org.apache.kafka", "connect-transforms"),
    ];
    let exclusions: String = UNWANTED
        .iter()
        .map(|(group, artifact)| {
            format!("<exclusion><groupId>{group}</groupId><artifactId>{artifact}</artifactId></exclusion>")
        })
        .collect();
    let dependencies: String = [
        ("org.apache.kafka", "kafka_2.13", version),
        ("org.apache.kafka", "kafka-tools", version),
        ("org.slf4j", "slf4j-simple", "1.7.36"),
    ]
    .iter()
    .map(|(group, artifact, version)| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>\
             <exclusions>{exclusions}</exclusions></dependency>"
        )
    })
    .collect();
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>fixture</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies></project>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_versions_numerically_and_rejects_others() {
        let old = Version::parse("3.9.1").expect("a version");
        let new = Version::parse("3.10.0").expect("a version");
        assert!(old.number < new.number);
        assert!(matches!(Version::parse("2.7.2"), Err(Error::Unfit(_))));
        assert!(matches!(Version::parse("4.3"), Err(Error::Unfit(_))));
        assert!(matches!(Version::parse("trunk"), Err(Error::Unfit(_))));
    }

    #[test]
    fn missing_program_error_names_it() {
        assert!(need("sh").is_ok());
        let error = need("no-such-program-at-all").expect_err("must be missing");
        assert!(error.is_unavailable());
        assert!(error.to_string().contains("no-such-program-at-all"));
    }
}
