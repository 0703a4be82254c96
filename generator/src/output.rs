//! Writes the generated files, or compares them with the existing ones.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    jar::{self, VERSION},
    rust::{self, Files},
};

const FOLDER: &str = "src/wire/messages";

/// Regenerates every file and returns their number. Files that are no longer generated are deleted.
///
/// # Errors
/// An error if the schemas cannot be fetched, or if a file cannot be written or formatted.
pub fn write() -> Result<usize, Box<dyn Error>> {
    let folder = jar::root().join(FOLDER);
    let files = generate()?;
    fs::create_dir_all(&folder)?;
    for name in names(&folder)? {
        if !files.contains_key(&name) {
            fs::remove_file(folder.join(name))?;
        }
    }
    for (name, text) in &files {
        fs::write(folder.join(name), text)?;
    }
    Ok(files.len())
}

/// Returns the names of the files that differ from the generated ones, including files that are
/// missing or no longer generated.
///
/// # Errors
/// An error if the schemas cannot be fetched, or if a file cannot be read.
pub fn check() -> Result<Vec<String>, Box<dyn Error>> {
    let folder = jar::root().join(FOLDER);
    let files = generate()?;
    let mut differing: Vec<String> = names(&folder)?.into_iter().filter(|name| !files.contains_key(name)).collect();
    for (name, text) in &files {
        if fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text) {
            differing.push(name.clone());
        }
    }
    Ok(differing)
}

/// Returns the formatted files.
fn generate() -> Result<Files, Box<dyn Error>> {
    let mut files = rust::files(&jar::schemas(VERSION)?)?;
    let scratch = jar::root().join("target").join(format!("generated-{}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    let formatted = format(&mut files, &scratch);
    fs::remove_dir_all(&scratch)?;
    formatted.map(|()| files)
}

fn format(files: &mut Files, scratch: &Path) -> Result<(), Box<dyn Error>> {
    for (name, text) in files.iter() {
        fs::write(scratch.join(name), text)?;
    }
    let paths: Vec<PathBuf> = files.keys().filter(|name| *name != "mod.rs").map(|name| scratch.join(name)).collect();
    let status = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(jar::root().join("rustfmt.toml"))
        .args(paths)
        .arg(scratch.join("mod.rs"))
        .status()
        .map_err(|error| format!("rustfmt cannot be started: {error}"))?;
    if !status.success() {
        return Err("rustfmt could not format the generated files".into());
    }
    for (name, text) in files.iter_mut() {
        *text = fs::read_to_string(scratch.join(name))?;
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
