//! The schemas inside the jar of Kafka's clients, which Maven fetches once.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use crate::schema::Message;

/// The version that the checked-in messages are generated from.
pub const VERSION: &str = "4.4.0";

const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";
const FOLDER: &str = "common/message/";

/// Every schema of a version, by the message's name.
pub type Schemas = BTreeMap<String, Message>;

/// Reads the schemas of a version of Kafka.
///
/// # Errors
/// An error if Maven is missing or cannot fetch the jar, or if a file of the jar is not a valid
/// schema.
pub fn schemas(version: &str) -> Result<Schemas, Box<dyn Error>> {
    let mut jar = zip::ZipArchive::new(File::open(fetch(version)?)?)?;
    let mut schemas = Schemas::new();
    for at in 0..jar.len() {
        let mut file = jar.by_index(at)?;
        let name = file.name()?.into_owned();
        if !name.starts_with(FOLDER) || !name.ends_with(".json") {
            continue;
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let message = Message::parse(&text).map_err(|error| format!("{name}: {error}"))?;
        schemas.insert(message.name.clone(), message);
    }
    Ok(schemas)
}

/// Returns the root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Returns the jar of a version of Kafka's clients, which Maven fetches if it does not exist yet.
///
/// # Errors
/// An error if Maven is missing or cannot fetch the jar.
pub fn fetch(version: &str) -> Result<PathBuf, Box<dyn Error>> {
    // Tests fetch from several threads.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = root().join("target").join("kafka").join("schemas");
    let name = format!("kafka-clients-{version}.jar");
    let jar = folder.join(&name);
    if !jar.is_file() {
        // Another process must not read a half-written jar.
        let part = folder.join(format!("part-{}", std::process::id()));
        fs::create_dir_all(&part)?;
        let fetched = run_maven(version, &part).and_then(|()| Ok(fs::rename(part.join(&name), &jar)?));
        fs::remove_dir_all(&part)?;
        fetched?;
    }
    Ok(jar)
}

fn run_maven(version: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new("mvn")
        .args(["-q", "-B", PLUGIN])
        .arg(format!("-Dartifact=org.apache.kafka:kafka-clients:{version}"))
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .status()
        .map_err(|error| format!("Maven (`mvn`) cannot be started: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("Maven could not fetch kafka-clients {version}").into()) }
}
