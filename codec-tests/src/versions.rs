//! Checks that the versions of the codecs are those of the main workspace's lock file.

/// The crates that encode and decode.
const CODECS: [&str; 8] = ["flate2", "lz4_flex", "snap", "zlib-rs", "zrip", "zrip-core", "zrip-decode", "zrip-encode"];

/// Returns the codecs' names and versions.
///
/// # Errors
/// An error if the lock files differ; it contains the command that corrects this.
pub fn versions() -> Result<Vec<String>, String> {
    let (ours, here) = (include_str!("../../Cargo.lock"), include_str!("../Cargo.lock"));
    CODECS
        .iter()
        .map(|name| match (version(ours, name), version(here, name)) {
            (Some(ours), Some(here)) if ours == here => Ok(format!("{name} {here}")),
            (Some(ours), Some(_)) => Err(format!(
                "{name} is at another version in the main workspace: \
                 cargo update --manifest-path codec-tests/Cargo.toml {name} --precise {ours}"
            )),
            _ => Err(format!("{name} is not in both lock files: correct the list in codec-tests/src/versions.rs")),
        })
        .collect()
}

fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, behind) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    behind.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lock_files_have_same_codecs() {
        assert_eq!(versions().map(|versions| versions.len()), Ok(CODECS.len()));
    }
}
